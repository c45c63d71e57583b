{{/* Every right of the operator, and nothing else: a test compares this file with the API server's audit
     log. */}}

{{/* In watched namespaces. */}}
{{- define "chimera.rules.watched" -}}
- apiGroups: [chimera.dunes.io]
  resources: [mamlworkflows]
  # delete: spec.ttlSecondsAfterFinished.
  verbs: [list, watch, delete]
- apiGroups: [chimera.dunes.io]
  resources: [chimeraheads, keyrotationpolicies]
  verbs: [list, watch]
- apiGroups: [chimera.dunes.io]
  resources: [mureceipts]
  verbs: [get, list, watch, create]
- apiGroups: [chimera.dunes.io]
  resources: [mamlworkflows/status, chimeraheads/status, keyrotationpolicies/status, mureceipts/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# Documents.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch]
# The TLS identity of a namespace's heads; written by server-side apply, whose requests carry the name.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [chimera-head-identity]
  verbs: [get, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* In the operator's own namespace. */}}
{{- define "chimera.rules.own" -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames:
    - chimera-root
    - chimera-ca
    {{- range include "chimera.keySecrets" . | fromJsonArray }}
    - {{ . }}
    {{- end }}
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [chimera-trust]
  verbs: [get, create, patch]
# Where old statements go when there are many.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: {{ include "chimera.trustPages" . }}
  verbs: [create, patch]
{{- if .Values.trust.offlineRoot }}
# What the offline root is asked. Its answers are only read.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [chimera-trust-requests]
  verbs: [create, patch]
{{- end }}
# A create request carries no name that a rule could be limited to.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "chimera.name" . }}]
  verbs: [get, update]
{{- if or .Values.keys.default.enabled .Values.keys.sealing.enabled }}
- apiGroups: [chimera.dunes.io]
  resources: [keyrotationpolicies]
  verbs: [create]
{{- end }}
{{- end }}

{{/* In the namespace of the default heads, which the operator creates where they are absent. */}}
{{- define "chimera.rules.defaultHeads" -}}
- apiGroups: [chimera.dunes.io]
  resources: [chimeraheads]
  verbs: [create]
{{- end }}
