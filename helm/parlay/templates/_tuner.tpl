{{- /* What all pods of the tuner share: called with root and part. */ -}}
{{- define "parlay.tuner.metadata" -}}
{{- $tuner := .root.Values.tuner -}}
labels:
  {{- include "parlay.tuner.labels" . | nindent 2 }}
  {{- with include "parlay.beside" .root }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $tuner.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $tuner.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "parlay.tuner.pod" -}}
{{- $tuner := .root.Values.tuner -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $tuner.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tuner.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $tuner.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tuner.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tuner.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- else }}
{{- if include "parlay.beside" .root }}
{{- include "parlay.beside.affinity" .root | nindent 0 }}
{{- end }}
{{- end }}
{{- if and $tuner.topologyKey (ne .part "migration") }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ $tuner.topologyKey | quote }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "parlay.tuner.selector" . | nindent 8 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
volumes:
  - name: data
    {{- if and (not .root.Values.tuner.store.postgres.secret) (ne .part "migration") }}
    persistentVolumeClaim:
      claimName: {{ $tuner.store.volume.existingClaim | default (include "parlay.tuner" .root) | quote }}
    {{- else }}
    emptyDir:
      sizeLimit: {{ $tuner.scratch | quote }}
    {{- end }}
  - name: scratch
    emptyDir:
      sizeLimit: {{ $tuner.scratch | quote }}
  {{- if has "ray" $tuner.launchers }}
  - name: shared-memory
    emptyDir:
      medium: Memory
      sizeLimit: 1Gi
  {{- end }}
  {{- with $tuner.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "parlay.tuner.container" -}}
{{- $tuner := .root.Values.tuner -}}
image: {{ $tuner.image | quote }}
imagePullPolicy: {{ $tuner.imagePullPolicy }}
env:
  {{- /* Nothing is written beside the sources. */}}
  - name: HOME
    value: /tmp
  - name: NUMBA_CACHE_DIR
    value: /tmp/numba
  {{- with $tuner.store.postgres }}
  {{- if .secret }}
  - name: PARLAY_STORE
    valueFrom:
      secretKeyRef:
        name: {{ .secret | quote }}
        key: {{ .key | quote }}
  {{- end }}
  {{- end }}
  {{- if eq .part "token" }}
  - name: PARLAY_TOKEN
    valueFrom:
      secretKeyRef:
        name: {{ $tuner.token.secret | quote }}
        key: {{ $tuner.token.key | quote }}
  {{- end }}
  {{- with $tuner.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: ["ALL"]
volumeMounts:
  - name: data
    mountPath: /var/lib/parlay
  - name: scratch
    mountPath: /tmp
  {{- if and (has "ray" $tuner.launchers) (has .part (list "api" "worker")) }}
  - name: shared-memory
    mountPath: /dev/shm
  {{- end }}
  {{- with $tuner.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* Whoever runs trials on a Ray cluster is a driver, and a driver needs a node of that cluster beside it: one without
       devices, which shares files and memory with it. */ -}}
{{- define "parlay.tuner.ray" -}}
{{- if has "ray" .root.Values.tuner.launchers -}}
- name: ray
  command: [ray, start, {{ printf "--address=%s" .root.Values.tuner.rayAddress | toJson }}, --num-cpus=0, --num-gpus=0, --block]
  lifecycle:
    preStop:
      exec:
        command:
          - python
          - -c
          - |
            {{- .root.Files.Get "files/after_workers.py" | trim | nindent 12 }}
          {{- range ternary (list 0) (until (int .root.Values.tuner.worker.replicas)) (eq .part "worker") }}
          - {{ add 9101 . | quote }}
          {{- end }}
  livenessProbe:
    httpGet: {path: /api/local_raylet_healthz, port: 52365}
    initialDelaySeconds: 60
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 12
  readinessProbe:
    httpGet: {path: /api/local_raylet_healthz, port: 52365}
    periodSeconds: 10
    timeoutSeconds: 5
  resources: {{- include "parlay.size" (dict "cpu" "1" "memory" "2Gi") | nindent 4 }}
  {{- include "parlay.tuner.container" . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- /* What studies run on: for whoever runs them. */ -}}
{{- define "parlay.tuner.runs" -}}
- --out=/var/lib/parlay
- --launchers={{ join "," .Values.tuner.launchers }}
{{- with .Values.tuner.rayAddress }}
- {{ printf "--ray-address=%s" . | toJson }}
{{- end }}
{{- range .Values.tuner.roots }}
- {{ printf "--root=%s" . | toJson }}
{{- end }}
{{- end -}}

{{- define "parlay.size" -}}
requests:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory | quote }}
limits:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory | quote }}
{{- end -}}
