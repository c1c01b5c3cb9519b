{{/*
A file of files/, which are those of deploy/admission and deploy/policy, for the
namespace of the release. Takes a list: the root context and the file's name.
*/}}
{{- define "lastcall-admission.file" -}}
{{- $root := index . 0 -}}
{{ $root.Files.Get (printf "files/%s" (index . 1)) | replace "lastcall-system" $root.Release.Namespace }}
{{- end }}

{{/* The same for a webhook's configuration, whose caBundles cert-manager may write. */}}
{{- define "lastcall-admission.webhook" -}}
{{- $root := index . 0 -}}
{{- $text := include "lastcall-admission.file" . -}}
{{- if eq $root.Values.certificates "cert-manager" -}}
{{- $text = $text | replace "\nwebhooks:\n" (printf "\n  annotations: {cert-manager.io/inject-ca-from: %s/lastcall-admission}\nwebhooks:\n" $root.Release.Namespace) -}}
{{- end -}}
{{ $text }}
{{- end }}

{{/* Not empty if something has to run: a policy needs nothing. */}}
{{- define "lastcall-admission.runs" -}}
{{- if or (eq .Values.injection "webhook") .Values.check .Values.gate }}true{{ end }}
{{- end }}

{{/* Not empty if the server reads the parameters. */}}
{{- define "lastcall-admission.reads" -}}
{{- if or (eq .Values.injection "webhook") .Values.check }}true{{ end }}
{{- end }}
