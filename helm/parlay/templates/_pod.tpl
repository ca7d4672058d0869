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

{{- define "parlay.raylet" -}}
wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success
{{- end -}}

{{- define "parlay.gcs" -}}
wget --tries 1 -T 10 -q -O- http://localhost:8265/api/gcs_healthz | grep success
{{- end -}}

{{- define "parlay.proxy" -}}
wget --tries 1 -T 10 -q -O- http://localhost:8000/-/healthz | grep success
{{- end -}}

{{- /* A probe that runs `command` in a shell, first after `delay` seconds. */ -}}
{{- define "parlay.probe" -}}
exec:
  command: [bash, "-c", {{ .command | quote }}]
initialDelaySeconds: {{ .delay }}
timeoutSeconds: 13
periodSeconds: 10
failureThreshold: 12
{{- end -}}

{{- /* What head and workers share: `serving` are the values, `name` the container's, `size` its resources, `gpus` its count of GPUs,
       `ports`, `alive` and `ready` differ. */ -}}
{{- define "parlay.pod" -}}
spec:
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    runAsGroup: 100
    fsGroup: 100
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: {{ .name }}
      image: {{ .serving.image | quote }}
      env:
        - name: HF_HOME
          value: /hf-cache
        - name: HF_TOKEN
          valueFrom:
            secretKeyRef:
              name: {{ .serving.tokenSecret }}
              key: token
              optional: true
      resources:
        requests: {{- toYaml .size | nindent 10 }}
        limits: {{- toYaml .size | nindent 10 }}
      securityContext:
        allowPrivilegeEscalation: false
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: shared-memory
          mountPath: /dev/shm
        - name: hf-cache
          mountPath: /hf-cache
        {{- if .serving.modelVolume }}
        - name: model
          mountPath: {{ .serving.modelVolume.path | quote }}
          readOnly: true
        {{- end }}
      ports:
        {{- range .ports }}
        - name: {{ .name }}
          containerPort: {{ .containerPort }}
        {{- end }}
      livenessProbe: {{- include "parlay.probe" (dict "command" .alive "delay" 30) | nindent 8 }}
      readinessProbe: {{- include "parlay.probe" (dict "command" .ready "delay" 10) | nindent 8 }}
  volumes:
    - name: shared-memory
      emptyDir:
        medium: Memory
        sizeLimit: {{ .serving.sharedMemory }}
    - name: hf-cache
      {{- if .serving.cacheClaim }}
      persistentVolumeClaim:
        claimName: {{ .serving.cacheClaim }}
      {{- else }}
      emptyDir: {}
      {{- end }}
    {{- if .serving.modelVolume }}
    - name: model
      persistentVolumeClaim:
        claimName: {{ .serving.modelVolume.claim }}
        readOnly: true
    {{- end }}
  {{- if gt (int .gpus) 0 }}
  {{- with .serving.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  tolerations:
    - key: {{ .serving.gpuResource }}
      operator: Exists
      effect: NoSchedule
  {{- end }}
{{- end -}}
