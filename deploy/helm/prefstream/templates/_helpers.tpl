{{- define "prefstream.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "prefstream.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "prefstream.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "prefstream.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "prefstream.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "prefstream.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What the program says of itself: files/program.json. */}}
{{- define "prefstream.program" -}}
{{- .Files.Get "files/program.json" -}}
{{- end -}}

{{/* Settings as environment variables. Numbers go through JSON: Go would write a million 1e+06. */}}
{{- define "prefstream.environment" -}}
{{- range $name, $value := . }}
PREFSTREAM_{{ upper $name }}: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- end -}}

{{- define "prefstream.uses" -}}
{{- $protocol := default "PLAINTEXT" .root.Values.settings.security_protocol -}}
{{- if contains .what $protocol }}true{{ end -}}
{{- end -}}

{{/* A role's user on the brokers: {username, secret}, as JSON. */}}
{{- define "prefstream.user" -}}
{{- $role := get .root.Values.auth.roles .role | default dict -}}
{{- $name := printf "%s-%s" (include "prefstream.fullname" .root) .role -}}
{{- $made := .root.Values.strimzi.users.enabled -}}
{{- $username := coalesce $role.username .root.Values.auth.username (ternary $name "" $made) -}}
{{- $secret := coalesce $role.existingSecret .root.Values.auth.existingSecret (ternary $name "" $made) -}}
{{- if and (include "prefstream.uses" (dict "root" .root "what" "SASL")) (not (and $username $secret)) -}}
{{- fail (printf "settings.security_protocol is %s: auth.username and auth.existingSecret, or auth.roles.%s, must say who %s is" .root.Values.settings.security_protocol .role .role) -}}
{{- end -}}
{{- dict "username" $username "secret" $secret | toJson -}}
{{- end -}}

{{- define "prefstream.env" -}}
- name: PREFSTREAM_INSTANCE_ID
  # Static membership: a pod that comes back under its name in time keeps its partitions.
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: PREFSTREAM_STATE_DIR
  value: /var/lib/prefstream
- name: PREFSTREAM_METRICS_HOST
  value: 0.0.0.0
- name: HF_HOME
  value: /var/lib/prefstream/hub
{{- if include "prefstream.uses" (dict "root" .root "what" "SASL") }}
- name: PREFSTREAM_SASL_USERNAME
  value: {{ (include "prefstream.user" . | fromJson).username | quote }}
- name: PREFSTREAM_SASL_PASSWORD_FILE
  value: /etc/prefstream/auth/password
{{- end }}
{{- if include "prefstream.uses" (dict "root" .root "what" "SSL") }}
{{- with .root.Values.tls }}
{{- if .caSecret }}
- name: PREFSTREAM_SSL_CA_FILE
  value: /etc/prefstream/ca/{{ .caKey }}
{{- end }}
{{- if .certSecret }}
- name: PREFSTREAM_SSL_CERT_FILE
  value: /etc/prefstream/cert/{{ .certKey }}
- name: PREFSTREAM_SSL_KEY_FILE
  value: /etc/prefstream/cert/{{ .keyKey }}
{{- if .keyPasswordKey }}
- name: PREFSTREAM_SSL_KEY_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .certSecret }}, key: {{ .keyPasswordKey }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "prefstream.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: state, mountPath: /var/lib/prefstream}
{{- if include "prefstream.uses" (dict "root" .root "what" "SASL") }}
- {name: auth, mountPath: /etc/prefstream/auth, readOnly: true}
{{- end }}
{{- if include "prefstream.uses" (dict "root" .root "what" "SSL") }}
{{- if .root.Values.tls.caSecret }}
- {name: ca, mountPath: /etc/prefstream/ca, readOnly: true}
{{- end }}
{{- if .root.Values.tls.certSecret }}
- {name: cert, mountPath: /etc/prefstream/cert, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "prefstream.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if include "prefstream.uses" (dict "root" .root "what" "SASL") }}
- name: auth
  secret:
    secretName: {{ (include "prefstream.user" . | fromJson).secret }}
    defaultMode: 0440
    items: [{key: {{ .root.Values.auth.passwordKey }}, path: password}]
{{- end }}
{{- if include "prefstream.uses" (dict "root" .root "what" "SSL") }}
{{- with .root.Values.tls.caSecret }}
- name: ca
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .root.Values.tls.certSecret }}
- name: cert
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end -}}

{{- define "prefstream.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# Or each start would walk through the whole state.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "prefstream.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "prefstream.image" -}}
{{- $tag := default (printf "%s-%s" .root.Chart.AppVersion .variant) .root.Values.image.tag -}}
{{- printf "%s:%s" .root.Values.image.repository $tag -}}
{{- end -}}

{{/* The pod of one process. Takes root, name and role; the caller adds the volume `state`. */}}
{{- define "prefstream.pod" -}}
{{- $root := .root -}}
{{- $own := get $root.Values .name -}}
{{- $program := get (include "prefstream.program" $root | fromJson).processes .name -}}
{{- $gpus := 0 -}}
{{- if eq .name "encode" }}{{ $gpus = int $own.gpu.count }}{{ end -}}
metadata:
  labels:
    {{- include "prefstream.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
  annotations:
    # A changed setting is a new pod.
    checksum/settings: {{ include (print $root.Template.BasePath "/configmap.yaml") $root | sha256sum }}
    {{- with $root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "prefstream.serviceAccountName" $root }}
  automountServiceAccountToken: false
  # A service called prefstream-metrics would set PREFSTREAM_METRICS_PORT.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
  securityContext:
    {{- include "prefstream.podSecurity" $root | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if and $gpus $own.gpu.runtimeClassName }}
  runtimeClassName: {{ $own.gpu.runtimeClassName }}
  {{- end }}
  {{- with $own.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "prefstream.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ .name }}
  containers:
    - name: {{ .name }}
      image: {{ include "prefstream.image" (dict "root" $root "variant" (ternary "gpu" "cpu" (gt $gpus 0))) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [worker, --tier, {{ $program.tier }}]
      envFrom:
        - configMapRef: {name: {{ include "prefstream.fullname" $root }}}
        - configMapRef: {name: {{ include "prefstream.fullname" $root }}-{{ .name }}}
      env:
        {{- include "prefstream.env" . | nindent 8 }}
        {{- with $own.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: metrics, containerPort: {{ $program.port }}}
      # Loading a model takes seconds, and it answers meanwhile; imports come before that.
      startupProbe:
        httpGet: {path: /live, port: metrics}
        periodSeconds: 5
        failureThreshold: 60
      # It ends by itself when it stands still (setting stall_timeout_s). This is for a blocked loop.
      livenessProbe:
        httpGet: {path: /live, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /ready, port: metrics}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      resources:
        {{- $limits := deepCopy (default dict $own.resources.limits) }}
        {{- if $gpus }}{{ $_ := set $limits $own.gpu.resource $gpus }}{{ end }}
        {{- toYaml (merge (dict "limits" $limits) $own.resources) | nindent 8 }}
      securityContext:
        {{- include "prefstream.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        {{- include "prefstream.mounts" . | nindent 8 }}
        {{- with $own.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "prefstream.volumes" . | nindent 4 }}
    {{- with $own.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* How many pods, unless something scales them. More than partitions would stand idle. */}}
{{- define "prefstream.replicas" -}}
{{- $own := get .root.Values .name -}}
{{- $most := ternary $own.autoscaling.maxReplicas $own.replicas $own.autoscaling.enabled -}}
{{- if gt (int $most) (int .root.Values.settings.partitions) -}}
{{- fail (printf "%s: %v pods for %v partitions (settings.partitions): the others would stand idle" .name $most .root.Values.settings.partitions) -}}
{{- end -}}
{{- if not $own.autoscaling.enabled }}replicas: {{ $own.replicas }}{{ end -}}
{{- end -}}
