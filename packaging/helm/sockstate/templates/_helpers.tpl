{{- define "sockstate.name" -}}
{{- if contains "sockstate" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-sockstate" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "sockstate.selector" -}}
app.kubernetes.io/name: sockstate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sockstate.labels" -}}
{{ include "sockstate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "sockstate.config" -}}
{{ tpl .Values.config . | trim }}
{{- if .Values.kubernetes.enabled }}

[kubernetes]
labels = {{ toJson .Values.kubernetes.labels }}
{{- if .Values.kubernetes.peers }}
peers = true
{{- end }}
{{- end }}
{{- end }}

{{- define "sockstate.metadata" -}}
name: {{ include "sockstate.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "sockstate.labels" . | nindent 2 }}
{{- end }}
