{{- define "parlay.controller.name" -}}
{{- printf "%s-controller" (.Release.Name | trunc 40 | trimSuffix "-") -}}
{{- end -}}

{{- define "parlay.controller.labels" -}}
app.kubernetes.io/name: parlay-controller
app.kubernetes.io/part-of: parlay
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "parlay.controller.selector" -}}
app.kubernetes.io/name: parlay-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
