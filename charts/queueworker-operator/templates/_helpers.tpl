{{- define "queueworker-operator.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 53 | trimSuffix "-" }}
{{- end -}}

{{- define "queueworker-operator.fullname" -}}
{{- $name := include "queueworker-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "queueworker-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "queueworker-operator.fullname" .) }}
{{- else -}}
{{ required "serviceAccount.create is false: set serviceAccount.name to the account that the operator is to use" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "queueworker-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "queueworker-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "queueworker-operator.labels" -}}
{{- $own := dict
  "app.kubernetes.io/name" (include "queueworker-operator.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/part-of" "queueworker"
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{ merge $own .Values.commonLabels | toYaml }}
{{- end -}}

{{- /* Labels of an object that has some of its own: (list $ labels). */ -}}
{{- define "queueworker-operator.labelsWith" -}}
{{ merge (include "queueworker-operator.labels" (index . 0) | fromYaml) (index . 1) | toYaml }}
{{- end -}}

{{- /* `annotations:` of an object: (list $ annotations); nothing if there are none. */ -}}
{{- define "queueworker-operator.annotations" -}}
{{- with merge (dict) (index . 1) (index . 0).Values.commonAnnotations -}}
annotations: {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "queueworker-operator.image" -}}
{{- $repository := required "image.repository is required: name the image with its registry, for example --set image.repository=registry.example/queueworker-operator (docs/install.md says how to build it, and how it gets into kind and minikube)" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* Which objects an operator, or the uninstall hook, is about. */ -}}
{{- define "queueworker-operator.scopeArgs" -}}
- --lease-name
- {{ include "queueworker-operator.fullname" . | quote }}
{{- range .Values.watchNamespaces }}
- --namespace
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "queueworker-operator.podNamespace" -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end -}}

{{- /* What all pods of the chart have in common. */ -}}
{{- define "queueworker-operator.podCommon" -}}
enableServiceLinks: false
{{- if not .Values.serviceAccount.automount }}
automountServiceAccountToken: false
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . | quote }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraVolumes }}
volumes: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What the containers of all pods of the chart have in common. */ -}}
{{- define "queueworker-operator.containerCommon" -}}
image: {{ include "queueworker-operator.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- with .Values.securityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
volumeMounts: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The operator's rights in the namespaces that it routes for; manifests/rbac/role.yaml has the reasons. */ -}}
{{- define "queueworker-operator.rules" -}}
- apiGroups: [crucible.dev]
  resources: [queueworkers]
  verbs: [list, watch, patch]
- apiGroups: [crucible.dev]
  resources: [queueworkers/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- $secrets := .Values.rbac.secrets }}
{{- if ne $secrets.read "None" }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
  {{- if eq $secrets.read "Named" }}
  resourceNames: {{- toYaml $secrets.names | nindent 4 }}
  {{- end }}
{{- end }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- if .Values.managedPools.enabled }}
{{ include "queueworker-operator.poolRules" . }}
{{- end }}
{{- end -}}

{{- /* The rights to run executors; manifests/components/managed-pools has the same. */ -}}
{{- define "queueworker-operator.poolRules" -}}
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [crucible.dev]
  resources: [queueworkers/finalizers]
  verbs: [update]
{{- end -}}

{{- define "queueworker-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "queueworker-operator.serviceAccountName" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}

{{- /* Whether `helm test` has its pod: without rights, it could do nothing. Empty if not. */ -}}
{{- define "queueworker-operator.hasSelfTest" -}}
{{- if and .Values.selfTest.enabled (or .Values.rbac.create .Values.selfTest.serviceAccountName) -}}
true
{{- end -}}
{{- end -}}

{{- /* Values that cannot work together, or are no longer what they were: each fails with what to write instead. */ -}}
{{- define "queueworker-operator.checkValues" -}}
{{- if hasKey .Values.rbac "secretNames" -}}
{{- fail (printf "rbac.secretNames has been replaced: write rbac.secrets: {read: Named, names: [%s]}" (join ", " .Values.rbac.secretNames)) -}}
{{- end -}}
{{- if and (eq .Values.rbac.secrets.read "Named") (not .Values.rbac.secrets.names) -}}
{{- fail "rbac.secrets.read is Named: list the Secrets in rbac.secrets.names" -}}
{{- end -}}
{{- if and (ne .Values.rbac.secrets.read "Named") .Values.rbac.secrets.names -}}
{{- fail (printf "rbac.secrets.names lists Secrets, but rbac.secrets.read is %s: write Named, or leave the names out" .Values.rbac.secrets.read) -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- fail "podMonitor.enabled and serviceMonitor.enabled are both true: every replica would be scraped twice; choose one" -}}
{{- end -}}
{{- end -}}
