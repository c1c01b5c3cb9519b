{{/*
What a chart includes. Each template takes the chart's root context, and reads
the values under `lastcall`. ../../example/templates/deployment.yaml uses all.
*/}}

{{/* The pod's terminationGracePeriodSeconds. */}}
{{- define "lastcall.gracePeriodSeconds" -}}
{{ .Values.lastcall.gracePeriodSeconds | int }}
{{- end }}

{{/* The label by which a PodMonitor or a NetworkPolicy finds the pods. */}}
{{- define "lastcall.labels" -}}
lastcall: sidecar
{{- end }}

{{/*
The preStop hook, for `lifecycle` of each of the app's containers. The kubelet
calls it and waits; SIGTERM comes when it returns. The port is a number: a name
would be looked up in the app's container.
*/}}
{{- define "lastcall.preStop" -}}
{{- if .Values.lastcall.execHook.enabled -}}
preStop:
  exec:
    # It waits for the drain, also if the sidecar is killed meanwhile, and then
    # becomes what is behind the two dashes.
    command: {{ include "lastcall.hookCommand" . }}
{{- else -}}
preStop:
  httpGet:
    {{- if .Values.lastcall.hostNetwork }}
    # The node's loopback, and so the pod's: the kubelet finds no address of it.
    host: 127.0.0.1
    {{- end }}
    path: /prestop
    port: {{ .Values.lastcall.port | int }}
    {{- $token := include "lastcall.token" . }}
    {{- if or .Values.lastcall.hookHeaders $token }}
    httpHeaders:
      {{- with $token }}
      - {name: Authorization, value: {{ printf "Bearer %s" . | quote }}}
      {{- end }}
      {{- with .Values.lastcall.hookHeaders }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- end }}
{{- end }}
{{- end }}

{{/* The command of an exec hook, as a list in JSON. */}}
{{- define "lastcall.hookCommand" -}}
{{- $command := list "/lastcall/lastcall" "hook" "-grace-period" (printf "%ss" (include "lastcall.gracePeriodSeconds" .)) "-port" (.Values.lastcall.port | int | toString) }}
{{- with .Values.lastcall.env.LASTCALL_RESERVE }}
{{- $command = concat $command (list "-reserve" (toString .)) }}
{{- end }}
{{- with .Values.lastcall.token }}
{{- $command = concat $command (list "-token" .) }}
{{- end }}
{{- with .Values.lastcall.execHook.command }}
{{- $command = concat $command (list "--") . }}
{{- end }}
{{- toJson $command }}
{{- end }}

{{/*
The token: the value's, or else, with generateToken, that of the Secret that is
there, or else a new one, which is the same wherever a release asks for it.
*/}}
{{- define "lastcall.token" -}}
{{- if and .Values.lastcall.generateToken (not .Values.lastcall.token) }}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "lastcall.secretName" .) }}
{{- $kept := dig "data" "LASTCALL_TOKEN" "" ($secret | default dict) | b64dec }}
{{- $_ := set .Values.lastcall "token" ($kept | default (randAlphaNum 32)) }}
{{- end }}
{{- .Values.lastcall.token }}
{{- end }}

{{/* For a file of its own: the Secret with the token, or nothing. */}}
{{- define "lastcall.secret" -}}
{{- if .Values.lastcall.generateToken -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ include "lastcall.secretName" . }}
stringData:
  LASTCALL_TOKEN: {{ include "lastcall.token" . | quote }}
{{- end }}
{{- end }}

{{- define "lastcall.secretName" -}}
{{ .Release.Name | trunc 54 | trimSuffix "-" }}-lastcall
{{- end }}

{{/*
For `volumes`, and for `volumeMounts` of each of the app's containers: a folder
that they share with the sidecar, for LASTCALL_DRAINING_FILE and the counter file.
*/}}
{{- define "lastcall.volumes" -}}
- name: lastcall
  emptyDir: {}
{{- end }}

{{- define "lastcall.volumeMounts" -}}
- {name: lastcall, mountPath: /lastcall}
{{- end }}

{{/* For `initContainers`: the native sidecar, or nothing in mode classic. */}}
{{- define "lastcall.initContainers" -}}
{{- if eq .Values.lastcall.mode "native" -}}
- {{ include "lastcall.container" . | nindent 2 | trim }}
  restartPolicy: Always
  # The app starts once the sidecar answers.
  startupProbe:
    httpGet: {path: /livez, port: {{ .Values.lastcall.port | int }}}
    periodSeconds: 1
    failureThreshold: 30
{{- end }}
{{- end }}

{{/* For `containers`: the ordinary container, or nothing in mode native. */}}
{{- define "lastcall.containers" -}}
{{- if eq .Values.lastcall.mode "classic" -}}
- {{ include "lastcall.container" . | nindent 2 | trim }}
{{- end }}
{{- end }}

{{/*
The sidecar's container, in any mode. It has no livenessProbe and no preStop:
either would begin a drain of a pod that nobody deletes, or end one too early.
*/}}
{{- define "lastcall.container" -}}
name: lastcall
image: {{ .Values.lastcall.image | quote }}
{{- with .Values.lastcall.imagePullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
env:
  - name: LASTCALL_GRACE_PERIOD
    value: {{ include "lastcall.gracePeriodSeconds" . }}s
  - name: LASTCALL_APP_PORT
    value: {{ include "lastcall.appPorts" . | quote }}
  - name: LASTCALL_LISTEN
    value: ":{{ .Values.lastcall.port | int }}"
  {{- if .Values.lastcall.generateToken }}
  - name: LASTCALL_TOKEN
    valueFrom: {secretKeyRef: {name: {{ include "lastcall.secretName" . }}, key: LASTCALL_TOKEN}}
  {{- else if .Values.lastcall.token }}
  - name: LASTCALL_TOKEN
    value: {{ .Values.lastcall.token | quote }}
  {{- end }}
  {{- range $name, $value := .Values.lastcall.env }}
  - name: {{ $name }}
    {{- /* Numbers of a values file are floats to helm: 1e+06 would be no number to others. */}}
    value: {{ kindIs "float64" $value | ternary (int64 $value) $value | toString | quote }}
  {{- end }}
  - name: LASTCALL_POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: LASTCALL_POD_IP
    valueFrom: {fieldRef: {fieldPath: status.podIPs}}
  - name: LASTCALL_HOST_IP
    valueFrom: {fieldRef: {fieldPath: status.hostIP}}
{{- with .Values.lastcall.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.lastcall.execHook.enabled }}
lifecycle:
  postStart:
    # Puts the hook's program on the shared volume. The image has no shell.
    exec: {command: [/bin/lastcall, install, /lastcall]}
{{- end }}
ports:
  - {name: lastcall, containerPort: {{ .Values.lastcall.port | int }}}
# The pod is ready when all its containers are: this probe takes it out of its
# Services as soon as a drain begins.
readinessProbe:
  httpGet: {path: /readyz, port: {{ .Values.lastcall.port | int }}}
  periodSeconds: 1
  failureThreshold: 1
  timeoutSeconds: 5
resources:
  {{- toYaml .Values.lastcall.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  readOnlyRootFilesystem: true
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  {{- include "lastcall.volumeMounts" . | nindent 2 }}
  {{- with .Values.lastcall.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The app's ports as LASTCALL_APP_PORT has them. */}}
{{- define "lastcall.appPorts" -}}
{{- $ports := list }}
{{- range .Values.lastcall.appPorts }}
{{- $ports = append $ports (int . | toString) }}
{{- end }}
{{- join "," $ports }}
{{- end }}
