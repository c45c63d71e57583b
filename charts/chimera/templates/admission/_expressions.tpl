{{/* Whether the request asks for a run: it creates the workflow, or changes its spec but for the
     submitter, or the annotation for another run. Requests that only touch other metadata, as the
     garbage collector's, ask for nothing. */}}
{{- define "chimera.asksForRun" -}}
request.operation == 'CREATE' ||
object.spec.exists(k, k != 'submitter' && !(k in oldObject.spec && oldObject.spec[k] == object.spec[k])) ||
oldObject.spec.exists(k, k != 'submitter' && !(k in object.spec)) ||
object.metadata.?annotations[?'chimera.dunes.io/rerun'].orValue('') != oldObject.metadata.?annotations[?'chimera.dunes.io/rerun'].orValue('')
{{- end }}

{{/* Who the submitter is after the request. */}}
{{- define "chimera.submitter" -}}
variables.asksForRun ? request.userInfo.username : oldObject.spec.?submitter.orValue(request.userInfo.username)
{{- end }}
