{{- define "wippy.name" -}}
{{- printf "%s-wippy" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "wippy.cluster" -}}
{{- default .Release.Name .Values.cluster -}}
{{- end -}}

{{- define "wippy.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "wippy.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "wippy.selector" -}}
app.kubernetes.io/name: wippy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "wippy.labels" -}}
{{ include "wippy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}
