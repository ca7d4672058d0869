{{- /* Written from deploy/specs/pods.py, the one place where the pods are said: change it there. */ -}}
{{- define "parlay.cluster" -}}
{{- $serving := merge (dict "name" (include "parlay.name" .)) .Values.serving -}}
rayVersion: {{ $serving.rayVersion | toJson }}
enableInTreeAutoscaling: false
headGroupSpec:
  rayStartParams:
    dashboard-host: "0.0.0.0"
    num-cpus: "0"
  template:
    metadata:
      labels: {{ merge (dict) (dict "parlay.dev/serving" $serving.name "parlay.dev/group" "head") ($serving.podLabels | default dict) | toJson }}
      {{- if $serving.podAnnotations }}
      annotations: {{ $serving.podAnnotations | toJson }}
      {{- end }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 60
      {{- if $serving.serviceAccountName }}
      serviceAccountName: {{ $serving.serviceAccountName | toJson }}
      {{- end }}
      {{- if $serving.imagePullSecrets }}
      imagePullSecrets: {{ $serving.imagePullSecrets | toJson }}
      {{- end }}
      {{- if $serving.priorityClassName }}
      priorityClassName: {{ $serving.priorityClassName | toJson }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 100
        fsGroup: 100
        fsGroupChangePolicy: "OnRootMismatch"
        seccompProfile:
          type: "RuntimeDefault"
      containers:
        - name: "ray-head"
          image: {{ $serving.image | toJson }}
          imagePullPolicy: {{ $serving.imagePullPolicy | toJson }}
          env:
            - name: "HF_HOME"
              value: "/hf-cache"
            - name: "HF_TOKEN"
              valueFrom:
                secretKeyRef:
                  name: {{ $serving.tokenSecret | toJson }}
                  key: "token"
                  optional: true
            - name: "RAY_worker_niceness"
              value: "0"
            {{- range $entry := $serving.rayEnv }}
            - {{ $entry | toJson }}
            {{- end }}
            {{- range $entry := $serving.extraEnv }}
            - {{ $entry | toJson }}
            {{- end }}
          resources:
            requests:
              cpu: {{ $serving.head.cpu | toJson }}
              memory: {{ $serving.head.memory | toJson }}
            limits:
              cpu: {{ $serving.head.cpu | toJson }}
              memory: {{ $serving.head.memory | toJson }}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop:
                - "ALL"
          volumeMounts:
            - name: "shared-memory"
              mountPath: "/dev/shm"
            - name: "hf-cache"
              mountPath: "/hf-cache"
            {{- if $serving.modelVolume }}
            - name: "model"
              mountPath: {{ $serving.modelVolume.path | toJson }}
              readOnly: true
            {{- end }}
            {{- range $entry := $serving.extraVolumeMounts }}
            - {{ $entry | toJson }}
            {{- end }}
          ports:
            - name: "gcs"
              containerPort: 6379
              protocol: "TCP"
            - name: "dashboard"
              containerPort: 8265
              protocol: "TCP"
            - name: "client"
              containerPort: 10001
              protocol: "TCP"
            - name: "metrics"
              containerPort: 8080
              protocol: "TCP"
            - name: "serve"
              containerPort: 8000
              protocol: "TCP"
          startupProbe:
            exec:
              command:
                - "bash"
                - "-c"
                - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success && wget --tries 1 -T 10 -q -O- http://localhost:8265/api/gcs_healthz | grep success"
            timeoutSeconds: 13
            periodSeconds: 10
            failureThreshold: 60
          livenessProbe:
            exec:
              command:
                - "bash"
                - "-c"
                - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success && wget --tries 1 -T 10 -q -O- http://localhost:8265/api/gcs_healthz | grep success"
            timeoutSeconds: 13
            periodSeconds: 10
            failureThreshold: 12
          readinessProbe:
            exec:
              command:
                - "bash"
                - "-c"
                - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success && wget --tries 1 -T 10 -q -O- http://localhost:8265/api/gcs_healthz | grep success"
            timeoutSeconds: 13
            periodSeconds: 10
            failureThreshold: 12
      volumes:
        - name: "shared-memory"
          emptyDir:
            medium: "Memory"
            sizeLimit: {{ $serving.sharedMemory | toJson }}
        {{- if $serving.cacheClaim }}
        - name: "hf-cache"
          persistentVolumeClaim:
            claimName: {{ $serving.cacheClaim | toJson }}
        {{- else }}
        - name: "hf-cache"
          emptyDir: {}
        {{- end }}
        {{- if $serving.modelVolume }}
        - name: "model"
          persistentVolumeClaim:
            claimName: {{ $serving.modelVolume.claim | toJson }}
            readOnly: true
        {{- end }}
        {{- range $entry := $serving.extraVolumes }}
        - {{ $entry | toJson }}
        {{- end }}
      {{- if $serving.tolerations }}
      tolerations: {{ $serving.tolerations | toJson }}
      {{- end }}
workerGroupSpecs:
  {{- range $group := $serving.workerGroups }}
  {{- $kind := get ($serving.gpuTypes | default dict) ($group.gpuType | default "") | default dict }}
  - groupName: {{ $group.name | toJson }}
    replicas: {{ $group.replicas | toJson }}
    minReplicas: {{ $group.replicas | toJson }}
    maxReplicas: {{ $group.replicas | toJson }}
    {{- if $group.pool }}
    labels:
      parlay.dev/pool: {{ $group.pool | toJson }}
    {{- end }}
    {{- if $group.logicalGpus }}
    rayStartParams:
      num-gpus: {{ $group.logicalGpus | toString | quote }}
    {{- else }}
    rayStartParams: {}
    {{- end }}
    template:
      metadata:
        labels: {{ merge (dict) (dict "parlay.dev/serving" $serving.name "parlay.dev/group" $group.name) ($serving.podLabels | default dict) | toJson }}
        {{- if $serving.podAnnotations }}
        annotations: {{ $serving.podAnnotations | toJson }}
        {{- end }}
      spec:
        automountServiceAccountToken: false
        enableServiceLinks: false
        terminationGracePeriodSeconds: 60
        {{- if $serving.serviceAccountName }}
        serviceAccountName: {{ $serving.serviceAccountName | toJson }}
        {{- end }}
        {{- if $serving.imagePullSecrets }}
        imagePullSecrets: {{ $serving.imagePullSecrets | toJson }}
        {{- end }}
        {{- if $serving.priorityClassName }}
        priorityClassName: {{ $serving.priorityClassName | toJson }}
        {{- end }}
        securityContext:
          runAsNonRoot: true
          runAsUser: 1000
          runAsGroup: 100
          fsGroup: 100
          fsGroupChangePolicy: "OnRootMismatch"
          seccompProfile:
            type: "RuntimeDefault"
        containers:
          - name: "ray-worker"
            image: {{ $serving.image | toJson }}
            imagePullPolicy: {{ $serving.imagePullPolicy | toJson }}
            env:
              - name: "HF_HOME"
                value: "/hf-cache"
              - name: "HF_TOKEN"
                valueFrom:
                  secretKeyRef:
                    name: {{ $serving.tokenSecret | toJson }}
                    key: "token"
                    optional: true
              - name: "RAY_worker_niceness"
                value: "0"
              {{- range $entry := $serving.rayEnv }}
              - {{ $entry | toJson }}
              {{- end }}
              {{- range $entry := $serving.extraEnv }}
              - {{ $entry | toJson }}
              {{- end }}
            resources:
              requests:
                cpu: {{ $group.cpu | toJson }}
                memory: {{ $group.memory | toJson }}
                {{- if $group.gpus }}
                {{ $serving.gpuResource | toJson }}: {{ $group.gpus | toString | quote }}
                {{- end }}
                {{- if $group.gpus }}
                {{- if $serving.rdma.resource }}
                {{ $serving.rdma.resource | toJson }}: {{ $serving.rdma.count | toString | quote }}
                {{- end }}
                {{- end }}
              limits:
                cpu: {{ $group.cpu | toJson }}
                memory: {{ $group.memory | toJson }}
                {{- if $group.gpus }}
                {{ $serving.gpuResource | toJson }}: {{ $group.gpus | toString | quote }}
                {{- end }}
                {{- if $group.gpus }}
                {{- if $serving.rdma.resource }}
                {{ $serving.rdma.resource | toJson }}: {{ $serving.rdma.count | toString | quote }}
                {{- end }}
                {{- end }}
            securityContext:
              allowPrivilegeEscalation: false
              capabilities:
                drop:
                  - "ALL"
                {{- if $group.gpus }}
                {{- if $serving.rdma.resource }}
                add:
                  - "IPC_LOCK"
                {{- end }}
                {{- end }}
            volumeMounts:
              - name: "shared-memory"
                mountPath: "/dev/shm"
              - name: "hf-cache"
                mountPath: "/hf-cache"
              {{- if $serving.modelVolume }}
              - name: "model"
                mountPath: {{ $serving.modelVolume.path | toJson }}
                readOnly: true
              {{- end }}
              {{- range $entry := $serving.extraVolumeMounts }}
              - {{ $entry | toJson }}
              {{- end }}
            ports:
              - name: "metrics"
                containerPort: 8080
                protocol: "TCP"
              - name: "serve"
                containerPort: 8000
                protocol: "TCP"
            startupProbe:
              exec:
                command:
                  - "bash"
                  - "-c"
                  - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"
              timeoutSeconds: 13
              periodSeconds: 10
              failureThreshold: 60
            livenessProbe:
              exec:
                command:
                  - "bash"
                  - "-c"
                  - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"
              timeoutSeconds: 13
              periodSeconds: 10
              failureThreshold: 12
            readinessProbe:
              exec:
                command:
                  - "bash"
                  - "-c"
                  - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success && wget --tries 1 -T 10 -q -O- http://localhost:8000/-/healthz | grep success"
              timeoutSeconds: 13
              periodSeconds: 10
              failureThreshold: 12
        volumes:
          - name: "shared-memory"
            emptyDir:
              medium: "Memory"
              sizeLimit: {{ $serving.sharedMemory | toJson }}
          {{- if $serving.cacheClaim }}
          - name: "hf-cache"
            persistentVolumeClaim:
              claimName: {{ $serving.cacheClaim | toJson }}
          {{- else }}
          - name: "hf-cache"
            emptyDir: {}
          {{- end }}
          {{- if $serving.modelVolume }}
          - name: "model"
            persistentVolumeClaim:
              claimName: {{ $serving.modelVolume.claim | toJson }}
              readOnly: true
          {{- end }}
          {{- range $entry := $serving.extraVolumes }}
          - {{ $entry | toJson }}
          {{- end }}
        {{- if $group.gpus }}
        {{- if or $kind.nodeSelector $serving.nodeSelector }}
        nodeSelector: {{ merge (dict) ($kind.nodeSelector | default dict) ($serving.nodeSelector | default dict) | toJson }}
        {{- end }}
        {{- end }}
        {{- if or $group.gpus $serving.tolerations $kind.tolerations }}
        tolerations:
          {{- if $group.gpus }}
          - key: {{ $serving.gpuResource | toJson }}
            operator: "Exists"
            effect: "NoSchedule"
          {{- end }}
          {{- range $entry := $serving.tolerations }}
          - {{ $entry | toJson }}
          {{- end }}
          {{- range $entry := $kind.tolerations }}
          - {{ $entry | toJson }}
          {{- end }}
        {{- end }}
        {{- if $group.gpus }}
        {{- if $kind.runtimeClassName }}
        runtimeClassName: {{ $kind.runtimeClassName | toJson }}
        {{- else }}
        {{- if $serving.runtimeClassName }}
        runtimeClassName: {{ $serving.runtimeClassName | toJson }}
        {{- end }}
        {{- end }}
        {{- end }}
        {{- if $serving.affinity }}
        affinity: {{ $serving.affinity | toJson }}
        {{- end }}
        {{- if $serving.topologySpread.topologyKey }}
        topologySpreadConstraints:
          - maxSkew: {{ $serving.topologySpread.maxSkew | toJson }}
            topologyKey: {{ $serving.topologySpread.topologyKey | toJson }}
            whenUnsatisfiable: {{ $serving.topologySpread.whenUnsatisfiable | toJson }}
            labelSelector:
              matchLabels:
                parlay.dev/serving: {{ $serving.name | toJson }}
        {{- end }}
        {{- if $serving.rdma.hostNetwork }}
        hostNetwork: true
        {{- end }}
        {{- if $serving.rdma.hostNetwork }}
        dnsPolicy: "ClusterFirstWithHostNet"
        {{- end }}
  {{- end }}
{{- end -}}

{{- define "parlay.gang" -}}
{{- $serving := .Values.serving -}}
{{- if (eq $serving.gang.scheduler "kueue") }}
kueue.x-k8s.io/queue-name: {{ $serving.gang.queue | toJson }}
{{- end }}
{{- if (eq $serving.gang.scheduler "volcano") }}
ray.io/scheduler-name: "volcano"
{{- end }}
{{- if (eq $serving.gang.scheduler "volcano") }}
volcano.sh/queue-name: {{ $serving.gang.queue | toJson }}
{{- end }}
{{- end -}}

{{- define "parlay.upgrade" -}}
{{- $serving := .Values.serving -}}
{{- if $serving.upgrade }}
upgradeStrategy:
  type: {{ $serving.upgrade | toJson }}
{{- end }}
{{- end -}}

{{- define "parlay.site" -}}
{{- pick .Values.serving "imagePullPolicy" "imagePullSecrets" "priorityClassName" "serviceAccountName" "podLabels" "podAnnotations" "extraEnv" "extraVolumes" "extraVolumeMounts" "tolerations" "runtimeClassName" "gpuTypes" "affinity" "topologySpread" "rdma" "gang" "upgrade" "head" "gpuResource" "sharedMemory" "cacheClaim" "modelVolume" "tokenSecret" "nodeSelector" | toYaml -}}
{{- end -}}
