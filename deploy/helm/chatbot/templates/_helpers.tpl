{{/* Labels of a component: call with (list . "auth"). */}}
{{- define "chatbot.selector" -}}
app.kubernetes.io/name: chatbot
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "chatbot.labels" -}}
{{ include "chatbot.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{- define "chatbot.name" -}}
{{ printf "%s-%s" (index . 0).Release.Name (index . 1) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Environment variables of both services. */}}
{{- define "chatbot.env" -}}
- name: ENVIRONMENT
  value: {{ .Values.environment | quote }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ required "redis.existingSecret is required" .Values.redis.existingSecret }}
      key: {{ .Values.redis.key }}
- name: CHATBOT__CHAT__AUTH_URL
  value: http://{{ include "chatbot.name" (list . "auth") }}:9001
- name: CHATBOT__SERVER__DRAIN_TIMEOUT
  value: {{ .Values.drainSeconds }}s
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* The deployment of a component: call with (list . "auth" 9001 9101). */}}
{{- define "chatbot.deployment" -}}
{{- $root := index . 0 }}{{ $component := index . 1 }}{{ $port := index . 2 }}{{ $admin := index . 3 }}
{{- $values := index $root.Values $component }}
{{- $call := list $root $component }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "chatbot.name" $call }}
  labels:
    {{- include "chatbot.labels" $call | nindent 4 }}
spec:
  replicas: {{ $values.replicas }}
  selector:
    matchLabels:
      {{- include "chatbot.selector" $call | nindent 6 }}
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  template:
    metadata:
      labels:
        {{- include "chatbot.labels" $call | nindent 8 }}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: {{ $admin | quote }}
    spec:
      automountServiceAccountToken: false
      # Longer than the pre-stop pause and the drain time together.
      terminationGracePeriodSeconds: {{ add $root.Values.drainSeconds $root.Values.preStopSeconds 15 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "chatbot.selector" $call | nindent 14 }}
      containers:
        - name: {{ $component }}
          image: "{{ $values.image.repository }}:{{ $values.image.tag | default $root.Chart.AppVersion }}"
          imagePullPolicy: {{ $values.image.pullPolicy }}
          env:
            {{- include "chatbot.env" $root | nindent 12 }}
            {{- with index $root.Values.trustedProxies $component }}
            - name: CHATBOT__SERVER__TRUSTED_PROXIES
              value: {{ join "," . | quote }}
            {{- end }}
          {{- if and (eq $component "chat") $root.Values.chatEnvFrom }}
          envFrom:
            {{- range $root.Values.chatEnvFrom }}
            - secretRef: {name: {{ . }}}
            {{- end }}
          {{- end }}
          ports:
            - {name: http, containerPort: {{ $port }}}
            - {name: metrics, containerPort: {{ $admin }}}
          livenessProbe:
            httpGet: {path: /livez, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 3
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 1
          startupProbe:
            httpGet: {path: /livez, port: metrics}
            periodSeconds: 1
            failureThreshold: 60
          lifecycle:
            preStop:
              sleep: {seconds: {{ $root.Values.preStopSeconds }}}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          {{- if eq $component "auth" }}
          volumeMounts:
            - {name: signing-keys, mountPath: /data/keys, readOnly: true}
      volumes:
        - name: signing-keys
          secret:
            secretName: {{ required "auth.signingKeysSecret is required" $values.signingKeysSecret }}
            # Readable by the group that fsGroup sets, and by nobody else.
            defaultMode: 0440
          {{- end }}
{{- end }}
