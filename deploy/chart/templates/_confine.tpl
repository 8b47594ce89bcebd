{{/* User names of the two programs' service accounts. */}}
{{- define "pilotlight.confine.agent" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "pilotlight.nodeAgent" . }}
{{- end -}}

{{- define "pilotlight.confine.scheduler" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "pilotlight.scheduler" . }}
{{- end -}}

{{/* Metadata of a policy and its binding. Call with (dict "root" $ "name" "agent-pods" "component" "node-agent"). */}}
{{- define "pilotlight.confine.metadata" -}}
metadata:
  name: {{ include "pilotlight.fullname" .root }}-{{ .name }}
  labels:
    {{- include "pilotlight.labels" . | nindent 4 }}
{{- end -}}

{{/* The binding of a policy: everywhere, and what is refused is refused. Call with the same. */}}
{{- define "pilotlight.confine.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
{{ include "pilotlight.confine.metadata" . }}
spec:
  policyName: {{ include "pilotlight.fullname" .root }}-{{ .name }}
  validationActions: [Deny]
{{- end -}}

{{/* CEL: whether a label or annotation `k` is one that assignments rely on. */}}
{{- define "pilotlight.confine.ours" -}}
(k == 'app.kubernetes.io/managed-by' || k.startsWith('llmsafespace.dev/'))
{{- end -}}

{{/* CEL: whether nothing of the metadata changes that has a meaning. */}}
{{- define "pilotlight.confine.sameMetadata" -}}
object.metadata.?labels == oldObject.metadata.?labels
&& object.metadata.?annotations == oldObject.metadata.?annotations
&& object.metadata.?finalizers == oldObject.metadata.?finalizers
&& object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences
{{- end -}}

{{/* CEL: whether of `variables.before` and `variables.after` only `variables.fields` differ. */}}
{{- define "pilotlight.confine.onlyFields" -}}
variables.after.all(k, k in variables.fields || (k in variables.before && variables.before[k] == variables.after[k]))
&& variables.before.all(k, k in variables.fields || k in variables.after)
{{- end -}}

{{/* CEL: the node that a token was issued on; empty where it names none. */}}
{{- define "pilotlight.confine.node" -}}
request.userInfo.?extra[?'authentication.kubernetes.io/node-name'][?0].orValue('')
{{- end -}}
