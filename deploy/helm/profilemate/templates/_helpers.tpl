{{- define "profilemate.name" -}}
{{- printf "%s-agent" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "profilemate.selector" -}}
app.kubernetes.io/name: profilemate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end -}}

{{- define "profilemate.labels" -}}
{{ include "profilemate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "profilemate.serves" -}}
{{- if .Values.tls.secretName -}}
{{- $_ := required "auth.secretName: an agent with TLS needs a token too" .Values.auth.secretName -}}
yes
{{- else if not .Values.otlp.endpoint -}}
{{- fail "nobody would hear of this: set tls.secretName and auth.secretName, or otlp.endpoint" -}}
{{- end -}}
{{- end -}}
