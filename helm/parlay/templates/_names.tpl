{{- /* Of the RayService. */ -}}
{{- define "parlay.name" -}}
{{- .Values.serving.name | default (.Release.Name | trunc 40 | trimSuffix "-") -}}
{{- end -}}

{{- define "parlay.labels" -}}
app.kubernetes.io/name: {{ include "parlay.name" . | quote }}
app.kubernetes.io/part-of: parlay
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ include "parlay.chart" . }}
{{- end -}}

{{- define "parlay.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* Of the tuner: its parts are called after it. */ -}}
{{- define "parlay.tuner" -}}
{{- $name := .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- ternary $name (printf "%s-parlay" $name) (contains "parlay" $name) -}}
{{- end -}}

{{- /* The labels that find a part's pods. Selectors cannot be changed, so nothing in here may: no version, no values. */ -}}
{{- define "parlay.tuner.selector" -}}
app.kubernetes.io/name: parlay
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "parlay.tuner.labels" -}}
{{ include "parlay.tuner.selector" . }}
app.kubernetes.io/part-of: parlay
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ include "parlay.chart" .root }}
{{- end -}}

{{- /* Name of the job by which Prometheus scrapes: the alerts know the service and its workers by it. */ -}}
{{- define "parlay.job" -}}
parlay-{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
