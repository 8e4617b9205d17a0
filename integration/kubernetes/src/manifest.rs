//! The files, in the types of `admissionregistration.k8s.io/v1`: a word that the API does not know is refused.
use boltseal_trust::Json;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One document of a file of policies.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest<S> {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    pub spec: S,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    pub name: String,
}

#[derive(Debug)]
pub enum Spec {
    Hold(HoldSpec),
    Stamp(StampSpec),
    BindHold(BindHoldSpec),
    BindStamp(BindStampSpec),
}

/// Of a ValidatingAdmissionPolicy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HoldSpec {
    pub failure_policy: FailurePolicy,
    pub match_constraints: Constraints,
    #[serde(default)]
    pub match_conditions: Vec<Named>,
    #[serde(default)]
    pub variables: Vec<Named>,
    pub validations: Vec<Validation>,
}

/// Of a MutatingAdmissionPolicy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StampSpec {
    pub failure_policy: FailurePolicy,
    pub reinvocation_policy: Reinvocation,
    pub match_constraints: Constraints,
    #[serde(default)]
    pub match_conditions: Vec<Named>,
    #[serde(default)]
    pub variables: Vec<Named>,
    pub mutations: Vec<Mutation>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindHoldSpec {
    pub policy_name: String,
    pub validation_actions: Vec<Action>,
    pub match_resources: Resources,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindStampSpec {
    pub policy_name: String,
    pub match_resources: Resources,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
pub enum FailurePolicy {
    Fail,
    Ignore,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
pub enum Reinvocation {
    Never,
    IfNeeded,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
pub enum Action {
    Deny,
    Warn,
    Audit,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Constraints {
    pub resource_rules: Vec<Rule>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    pub api_groups: Vec<String>,
    pub api_versions: Vec<String>,
    pub operations: Vec<Operation>,
    pub resources: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    pub name: String,
    pub expression: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Validation {
    pub expression: String,
    pub message: Option<String>,
    pub message_expression: Option<String>,
    pub reason: Option<Reason>,
}

#[derive(Debug, Deserialize)]
pub enum Reason {
    Unauthorized,
    Forbidden,
    Invalid,
    RequestEntityTooLarge,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mutation {
    pub patch_type: PatchType,
    pub apply_configuration: Expression,
}

#[derive(Debug, Deserialize)]
pub enum PatchType {
    ApplyConfiguration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expression {
    pub expression: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    pub namespace_selector: Selector,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    pub match_expressions: Vec<Requirement>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    pub key: String,
    pub operator: SelectorOperator,
    pub values: Vec<String>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
pub enum SelectorOperator {
    In,
    NotIn,
}

/// Every document of a YAML file.
///
/// # Errors
/// Not YAML, or of what readers of YAML differ on.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    Ok(boltseal_import::documents(text.as_bytes())?.iter().map(value).collect())
}

/// Every document of a file of admission policies.
///
/// # Errors
/// As `documents`, or one of them is not of these types.
pub fn manifests(text: &str) -> Result<Vec<Manifest<Spec>>, String> {
    documents(text)?.into_iter().map(typed).collect()
}

fn typed(document: Value) -> Result<Manifest<Spec>, String> {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    match kind.as_str() {
        "ValidatingAdmissionPolicy" => of(document, Spec::Hold),
        "MutatingAdmissionPolicy" => of(document, Spec::Stamp),
        "ValidatingAdmissionPolicyBinding" => of(document, Spec::BindHold),
        "MutatingAdmissionPolicyBinding" => of(document, Spec::BindStamp),
        other => Err(format!("a document of kind \"{other}\"")),
    }
}

fn of<S: for<'a> Deserialize<'a>>(document: Value, wrap: fn(S) -> Spec) -> Result<Manifest<Spec>, String> {
    let Manifest { api_version, kind, metadata, spec } =
        serde_json::from_value::<Manifest<S>>(document).map_err(|e| e.to_string())?;
    if api_version != "admissionregistration.k8s.io/v1" {
        return Err(format!("{kind} of {api_version}"));
    }
    Ok(Manifest { api_version, kind, metadata, spec: wrap(spec) })
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null | Json::Other => Value::Null,
        Json::Bool(yes) => Value::from(*yes),
        Json::Integer(number) => Value::from(*number),
        Json::Text(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::Array(items.iter().map(value).collect()),
        Json::Object(members) => Value::Object(members.iter().map(|(k, v)| (k.clone(), value(v))).collect()),
    }
}
