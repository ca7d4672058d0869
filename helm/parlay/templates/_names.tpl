{{- define "parlay.name" -}}
{{- .Values.serving.name | default (.Release.Name | trunc 40 | trimSuffix "-") -}}
{{- end -}}

{{- define "parlay.labels" -}}
app.kubernetes.io/name: {{ include "parlay.name" . }}
app.kubernetes.io/part-of: parlay
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
