{{- define "parlay.controller.name" -}}
{{- printf "%s-controller" (.Release.Name | trunc 40 | trimSuffix "-") -}}
{{- end -}}

{{- define "parlay.controller.labels" -}}
{{ include "parlay.controller.selector" . }}
app.kubernetes.io/part-of: parlay
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ include "parlay.chart" . }}
{{- end -}}

{{- define "parlay.controller.selector" -}}
app.kubernetes.io/name: parlay-controller
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- /* Name of the job by which Prometheus scrapes it: not one of the alerts', which are of the service and its workers. */ -}}
{{- define "parlay.controller.job" -}}
layoutrequests-{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}

{{- /* What it shares with the service of the same release need not be said twice: image, launchers and store, as YAML.
       `beside`: its volume is the service's, which one node at a time can have. */ -}}
{{- define "parlay.controller.given" -}}
{{- $controller := .Values.controller -}}
{{- $tuner := .Values.tuner -}}
{{- $store := dict "secret" $controller.store.secret "key" $controller.store.key "claim" $controller.store.claim "beside" false -}}
{{- if not (or $store.secret $store.claim) -}}
{{- if $tuner.store.postgres.secret -}}
{{- $_ := set $store "secret" $tuner.store.postgres.secret -}}
{{- $_ := set $store "key" $tuner.store.postgres.key -}}
{{- else if $tuner.enabled -}}
{{- $_ := set $store "claim" ($tuner.store.volume.existingClaim | default (include "parlay.tuner" .)) -}}
{{- $_ := set $store "beside" true -}}
{{- end -}}
{{- end -}}
{{- $launchers := $controller.launchers | default (ternary $tuner.launchers (list "ray") $tuner.enabled) -}}
{{- $image := $controller.image | default $tuner.image -}}
{{- $pull := $controller.imagePullSecrets | default $tuner.imagePullSecrets -}}
{{- dict "store" $store "launchers" $launchers "image" $image "imagePullSecrets" $pull | toYaml -}}
{{- end -}}

{{- /* Whether it looks after all namespaces. */ -}}
{{- define "parlay.controller.everywhere" -}}
{{- if kindIs "string" .Values.controller.namespaces -}}
true
{{- end -}}
{{- end -}}

{{- /* The verbs that the controller uses, and no other; tests/with_kubernetes/test_api.py holds it to them. */ -}}
{{- define "parlay.controller.rules" -}}
- apiGroups: ["parlay.dev"]
  resources: ["layoutrequests"]
  verbs: ["list", "watch", "patch"]
- apiGroups: ["parlay.dev"]
  resources: ["layoutrequests/status"]
  verbs: ["update"]
- apiGroups: ["ray.io"]
  resources: ["rayservices"]
  verbs: ["list", "watch", "create", "patch"]
{{- if .Values.controller.trials.maxGpus }}
- apiGroups: ["ray.io"]
  resources: ["rayclusters"]
  verbs: ["list", "watch", "create", "patch", "delete"]
{{- end }}
- apiGroups: [""]
  resources: ["configmaps"]
  verbs: ["get", "create", "patch"]
- apiGroups: [""]
  resources: ["events"]
  verbs: ["create"]
{{- end -}}

{{- /* Of what RayClusters for single studies are made. */ -}}
{{- define "parlay.controller.trials" -}}
{{- $trials := .Values.controller.trials -}}
{{- $store := (include "parlay.controller.given" . | fromYaml).store -}}
maxGpus: {{ $trials.maxGpus }}
image: {{ $trials.image | quote }}
rayVersion: {{ $trials.rayVersion | quote }}
storeSecret: {{ $store.secret | quote }}
storeKey: {{ $store.key | quote }}
cpu: {{ $trials.cpu | quote }}
memory: {{ $trials.memory | quote }}
roots: {{ .Values.controller.roots | toJson }}
{{- end -}}

{{- /* The site's part of `serving`; of a release that serves a layout itself, where its pods go is the layout's. */ -}}
{{- define "parlay.controller.site" -}}
{{- $site := include "parlay.site" . | fromYaml -}}
{{- omit $site (ternary "nodeSelector" "" (not (not .Values.serving.serveConfigV2))) | toYaml -}}
{{- end -}}

{{- /* Whether the controller's volume is that of the service: then pods of both have a label, and each goes where another
       with it is. The first of them goes anywhere, since it has the label itself. */ -}}
{{- define "parlay.beside" -}}
{{- if and .Values.controller.enabled (include "parlay.controller.given" . | fromYaml).store.beside -}}
parlay.dev/volume: {{ include "parlay.tuner" . }}
{{- end -}}
{{- end -}}

{{- define "parlay.beside.affinity" -}}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "parlay.beside" . | nindent 12 }}
{{- end -}}
