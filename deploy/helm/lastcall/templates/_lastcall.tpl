{{/*
The templates for other charts to include. Each takes the chart's root context, and reads the
values under `lastcall`. ../../example/templates/deployment.yaml uses all of them.
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
The preStop hook, for `lifecycle` of each of the app's containers. The kubelet calls it and
waits until it returns. Then it sends SIGTERM to the app. The port must be a number: the
kubelet would look up a name in the app's container.
*/}}
{{- define "lastcall.preStop" -}}
{{- if .Values.lastcall.execHook.enabled -}}
preStop:
  exec:
    # The hook waits for the drain, even if the sidecar is killed meanwhile. Then it runs
    # the command after "--" in place of itself.
    command: {{ include "lastcall.hookCommand" . }}
{{- else -}}
preStop:
  httpGet:
    {{- if .Values.lastcall.hostNetwork }}
    # The node's loopback address, which is also the pod's. Without it, the kubelet finds
    # no address of the pod.
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

{{/* The command of an exec hook, as a JSON list. */}}
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
The token. It is the value `token` if that is set. With generateToken, it is otherwise the one
in the existing Secret, or else a new one, which is the same in the whole release.
*/}}
{{- define "lastcall.token" -}}
{{- if and .Values.lastcall.generateToken (not .Values.lastcall.token) }}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "lastcall.secretName" .) }}
{{- $kept := dig "data" "LASTCALL_TOKEN" "" ($secret | default dict) | b64dec }}
{{- $_ := set .Values.lastcall "token" ($kept | default (randAlphaNum 32)) }}
{{- end }}
{{- .Values.lastcall.token }}
{{- end }}

{{/* The Secret with the token, or nothing. It belongs in a separate file. */}}
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
For `volumes`, and for `volumeMounts` of each of the app's containers: a folder that they
share with the sidecar, for LASTCALL_DRAINING_FILE and the counter `file`.
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
  # The app starts when the sidecar answers.
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
The sidecar's container, in any mode. It has no livenessProbe and no preStop: they could begin
a drain of a pod that is not being deleted, or end a drain too early.
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
    {{- /* Helm reads numbers as floats, and would write a large one as 1e+06. */}}
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
    # Copies the hook's program to the shared volume. The image has no shell.
    exec: {command: [/bin/lastcall, install, /lastcall]}
{{- end }}
ports:
  - {name: lastcall, containerPort: {{ .Values.lastcall.port | int }}}
# A pod is ready if all its containers are. So this probe removes the pod from its
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

{{/* The app's ports in the format of LASTCALL_APP_PORT. */}}
{{- define "lastcall.appPorts" -}}
{{- $ports := list }}
{{- range .Values.lastcall.appPorts }}
{{- $ports = append $ports (int . | toString) }}
{{- end }}
{{- join "," $ports }}
{{- end }}
