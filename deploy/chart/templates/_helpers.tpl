{{/* Prefix of all names: the release's name, which says "pilotlight" itself in the usual case. */}}
{{- define "pilotlight.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "pilotlight.scheduler" -}}
{{ include "pilotlight.fullname" . }}-scheduler
{{- end -}}

{{- define "pilotlight.nodeAgent" -}}
{{ include "pilotlight.fullname" . }}-node-agent
{{- end -}}

{{/* The controller of agents.x-k8s.io. */}}
{{- define "pilotlight.agents" -}}
{{ include "pilotlight.fullname" . }}-agents
{{- end -}}

{{/* The Secret and the ConfigMap of the node stream's CA. */}}
{{- define "pilotlight.ca" -}}
{{ include "pilotlight.fullname" . }}-ca
{{- end -}}

{{/* What never changes during the life of an object. Call with (dict "root" $ "component" "scheduler"). */}}
{{- define "pilotlight.selectorLabels" -}}
app.kubernetes.io/name: pilotlight
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "pilotlight.labels" -}}
{{ include "pilotlight.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Call with (dict "root" $ "image" .Values.images.scheduler). */}}
{{- define "pilotlight.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What a container may that has nothing to do. */}}
{{- define "pilotlight.idle" -}}
resources:
  requests:
    cpu: 1m
    memory: 4Mi
  limits:
    cpu: 100m
    memory: 64Mi
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}
