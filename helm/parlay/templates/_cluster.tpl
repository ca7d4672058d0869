{{- /* Written from deploy/specs/pods.py, the one place where the pods are said: change it there. */ -}}
{{- define "parlay.cluster" -}}
{{- $serving := .Values.serving -}}
rayVersion: {{ $serving.rayVersion | toJson }}
enableInTreeAutoscaling: false
headGroupSpec:
  rayStartParams:
    dashboard-host: "0.0.0.0"
    num-cpus: "0"
  template:
    spec:
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 100
        fsGroup: 100
        seccompProfile:
          type: "RuntimeDefault"
      containers:
        - name: "ray-head"
          image: {{ $serving.image | toJson }}
          env:
            - name: "HF_HOME"
              value: "/hf-cache"
            - name: "HF_TOKEN"
              valueFrom:
                secretKeyRef:
                  name: {{ $serving.tokenSecret | toJson }}
                  key: "token"
                  optional: true
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
          ports:
            - name: "gcs"
              containerPort: 6379
            - name: "dashboard"
              containerPort: 8265
            - name: "client"
              containerPort: 10001
            - name: "metrics"
              containerPort: 8080
            - name: "serve"
              containerPort: 8000
          livenessProbe:
            exec:
              command:
                - "bash"
                - "-c"
                - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success && wget --tries 1 -T 10 -q -O- http://localhost:8265/api/gcs_healthz | grep success"
            initialDelaySeconds: 30
            timeoutSeconds: 13
            periodSeconds: 10
            failureThreshold: 12
          readinessProbe:
            exec:
              command:
                - "bash"
                - "-c"
                - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success && wget --tries 1 -T 10 -q -O- http://localhost:8265/api/gcs_healthz | grep success"
            initialDelaySeconds: 10
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
workerGroupSpecs:
  {{- range $group := $serving.workerGroups }}
  - groupName: {{ $group.name | toJson }}
    replicas: {{ $group.replicas | toJson }}
    minReplicas: {{ $group.replicas | toJson }}
    maxReplicas: {{ $group.replicas | toJson }}
    {{- if $group.logicalGpus }}
    rayStartParams:
      num-gpus: {{ $group.logicalGpus | toString | quote }}
    {{- else }}
    rayStartParams: {}
    {{- end }}
    template:
      spec:
        securityContext:
          runAsNonRoot: true
          runAsUser: 1000
          runAsGroup: 100
          fsGroup: 100
          seccompProfile:
            type: "RuntimeDefault"
        containers:
          - name: "ray-worker"
            image: {{ $serving.image | toJson }}
            env:
              - name: "HF_HOME"
                value: "/hf-cache"
              - name: "HF_TOKEN"
                valueFrom:
                  secretKeyRef:
                    name: {{ $serving.tokenSecret | toJson }}
                    key: "token"
                    optional: true
            resources:
              requests:
                cpu: {{ $group.cpu | toJson }}
                memory: {{ $group.memory | toJson }}
                {{- if $group.gpus }}
                {{ $serving.gpuResource | toJson }}: {{ $group.gpus | toString | quote }}
                {{- end }}
              limits:
                cpu: {{ $group.cpu | toJson }}
                memory: {{ $group.memory | toJson }}
                {{- if $group.gpus }}
                {{ $serving.gpuResource | toJson }}: {{ $group.gpus | toString | quote }}
                {{- end }}
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
            ports:
              - name: "metrics"
                containerPort: 8080
              - name: "serve"
                containerPort: 8000
            livenessProbe:
              exec:
                command:
                  - "bash"
                  - "-c"
                  - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"
              initialDelaySeconds: 30
              timeoutSeconds: 13
              periodSeconds: 10
              failureThreshold: 12
            readinessProbe:
              exec:
                command:
                  - "bash"
                  - "-c"
                  - "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success && wget --tries 1 -T 10 -q -O- http://localhost:8000/-/healthz | grep success"
              initialDelaySeconds: 10
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
        {{- if $group.gpus }}
        {{- if $serving.nodeSelector }}
        nodeSelector: {{ $serving.nodeSelector | toJson }}
        {{- end }}
        {{- end }}
        {{- if $group.gpus }}
        tolerations:
          - key: {{ $serving.gpuResource | toJson }}
            operator: "Exists"
            effect: "NoSchedule"
        {{- end }}
  {{- end }}
{{- end -}}
