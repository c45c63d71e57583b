{{/* Names are fixed, since one release serves a cluster and other parts rely on them. */}}
{{- define "chimera.name" -}}chimera-controller{{- end }}

{{- define "chimera.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: chimera
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: chimera
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "chimera.selectorLabels" -}}
app.kubernetes.io/name: chimera
app.kubernetes.io/component: controller
{{- end }}

{{/* Reference of an image: {repository, tag, digest}. */}}
{{- define "chimera.image" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end }}

{{/* The user that the operator's requests come from. */}}
{{- define "chimera.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "chimera.name" . }}
{{- end }}

{{/* Watched namespaces as JSON: empty for all, otherwise the operator's own among them, since its signing
     policies live there. */}}
{{- define "chimera.watched" -}}
{{- if .Values.watchNamespaces -}}
{{ concat .Values.watchNamespaces (list .Release.Namespace) | uniq | sortAlpha | toJson }}
{{- else -}}
[]
{{- end -}}
{{- end }}

{{/* The Secrets with the keys of policies, as JSON. */}}
{{- define "chimera.keySecrets" -}}
{{- $policies := .Values.keys.policies }}
{{- if .Values.keys.sealing.enabled }}{{ $policies = append $policies "sealing" }}{{ end }}
{{- $secrets := list }}
{{- range $policy := $policies }}
{{- $parts := splitList "/" $policy }}
{{- if eq (len $parts) 2 }}
{{- $secrets = append $secrets (printf "chimera-sealing-%s.%s" (first $parts) (last $parts)) }}
{{- else }}
{{- $secrets = append $secrets (printf "chimera-keys-%s" $policy) }}
{{- end }}
{{- end }}
{{- $secrets | uniq | toJson }}
{{- end }}

{{/* The ConfigMaps with old statements of the trust bundle, as JSON. */}}
{{- define "chimera.trustPages" -}}
{{- $pages := list }}
{{- range $page := untilStep 1 65 1 }}
{{- $pages = append $pages (printf "chimera-trust-%d" $page) }}
{{- end }}
{{- $pages | toJson }}
{{- end }}

{{- define "chimera.defaultHeadNamespace" -}}
{{ .Values.heads.default.namespace | default .Release.Namespace }}
{{- end }}

{{/* What every pod of the chart has in common: Pod Security "restricted". */}}
{{- define "chimera.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "chimera.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}
