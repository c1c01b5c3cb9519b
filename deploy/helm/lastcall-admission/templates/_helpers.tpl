{{/*
A file in files/, changed to the namespace of the release. The files are copies of files in
deploy/admission and deploy/policy. Takes a list: the root context and the file's name.
*/}}
{{- define "lastcall-admission.file" -}}
{{- $root := index . 0 -}}
{{ $root.Files.Get (printf "files/%s" (index . 1)) | replace "lastcall-system" $root.Release.Namespace }}
{{- end }}

{{/* The same for a webhook configuration, with cert-manager's annotation if it is used. */}}
{{- define "lastcall-admission.webhook" -}}
{{- $root := index . 0 -}}
{{- $text := include "lastcall-admission.file" . -}}
{{- if eq $root.Values.certificates "cert-manager" -}}
{{- $text = $text | replace "\nwebhooks:\n" (printf "\n  annotations: {cert-manager.io/inject-ca-from: %s/lastcall-admission}\nwebhooks:\n" $root.Release.Namespace) -}}
{{- end -}}
{{ $text }}
{{- end }}

{{/* Not empty if the server is needed. A policy alone does not need it. */}}
{{- define "lastcall-admission.runs" -}}
{{- if or (eq .Values.injection "webhook") .Values.check .Values.gate }}true{{ end }}
{{- end }}

{{/* Not empty if the server must read the parameters. */}}
{{- define "lastcall-admission.reads" -}}
{{- if or (eq .Values.injection "webhook") .Values.check }}true{{ end }}
{{- end }}
