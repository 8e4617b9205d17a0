//! A request and the policies -> the object as it would be kept, or who refuses it and why.
use crate::expression::evaluate;
use crate::manifest::{
    BindHoldSpec, BindStampSpec, Constraints, FailurePolicy, HoldSpec, Manifest, Metadata, Named, Operation, Resources,
    SelectorOperator, Spec, StampSpec, manifests,
};
use serde_json::{Map, Value, json};

/// The label that the API server gives each namespace.
const NAME: &str = "kubernetes.io/metadata.name";

/// A write, as admission sees it.
#[derive(Debug, Clone)]
pub struct Request {
    pub user: String,
    pub groups: Vec<String>,
    pub operation: Operation,
    pub namespace: String,
    pub group: String,
    /// With the subresource: `pods/status`.
    pub resource: String,
    pub object: Value,
    /// What stands there before an update.
    pub old: Value,
}

#[derive(Debug, Default)]
pub struct Policies {
    holds: Vec<(String, HoldSpec)>,
    stamps: Vec<(String, StampSpec)>,
    bound_holds: Vec<BindHoldSpec>,
    bound_stamps: Vec<BindStampSpec>,
}

impl Policies {
    /// What these files say together.
    ///
    /// # Errors
    /// As `manifests` and `of`.
    pub fn read(files: &[&str]) -> Result<Self, String> {
        let mut all = Vec::new();
        for file in files {
            all.extend(manifests(file)?);
        }
        Self::of(all)
    }

    /// # Errors
    /// One of them lets requests through where it fails.
    pub fn of(manifests: Vec<Manifest<Spec>>) -> Result<Self, String> {
        let mut all = Self::default();
        for Manifest { metadata: Metadata { name }, spec, .. } in manifests {
            match spec {
                Spec::Hold(HoldSpec { failure_policy: FailurePolicy::Ignore, .. })
                | Spec::Stamp(StampSpec { failure_policy: FailurePolicy::Ignore, .. }) => {
                    return Err(format!("{name}: an error of an expression lets the request through"));
                }
                Spec::Hold(spec) => all.holds.push((name, spec)),
                Spec::Stamp(spec) => all.stamps.push((name, spec)),
                Spec::BindHold(spec) => all.bound_holds.push(spec),
                Spec::BindStamp(spec) => all.bound_stamps.push(spec),
            }
        }
        Ok(all)
    }

    /// Stamps, then holds. What comes back is the object as it would be kept.
    ///
    /// # Errors
    /// One line of each policy that refuses.
    pub fn admit(&self, request: &Request) -> Result<Value, String> {
        let mut request = request.clone();
        for (name, spec) in &self.stamps {
            let bound = self.bound_stamps.iter().filter(|b| b.policy_name == *name);
            if bound.into_iter().any(|b| selects(&b.match_resources, &request.namespace))
                && matches(&spec.match_constraints, &request)
                && wanted(&spec.match_conditions, &request).map_err(|why| format!("{name}: {why}"))?
            {
                let variables = variables(&spec.variables, &request);
                for mutation in &spec.mutations {
                    let expression = &mutation.apply_configuration.expression;
                    let applied = of(expression, &request, &variables).map_err(|why| format!("{name}: {why}"))?;
                    apply(&mut request.object, applied);
                }
            }
        }
        let mut refused = Vec::new();
        for (name, spec) in &self.holds {
            let bound = self.bound_holds.iter().filter(|b| b.policy_name == *name);
            if bound.into_iter().any(|b| selects(&b.match_resources, &request.namespace))
                && matches(&spec.match_constraints, &request)
            {
                refused.extend(hold(spec, &request).err().map(|why| format!("{name}: {why}")));
            }
        }
        if refused.is_empty() { Ok(request.object) } else { Err(refused.join("; ")) }
    }

    /// Some policy has a word on this request, wherever it is bound.
    #[must_use]
    pub fn ask(&self, request: &Request) -> bool {
        self.holds.iter().any(|(_, spec)| matches(&spec.match_constraints, request))
            || self.stamps.iter().any(|(_, spec)| matches(&spec.match_constraints, request))
    }
}

fn hold(spec: &HoldSpec, request: &Request) -> Result<(), String> {
    if !wanted(&spec.match_conditions, request)? {
        return Ok(());
    }
    let variables = variables(&spec.variables, request);
    for validation in &spec.validations {
        match of(&validation.expression, request, &variables)? {
            Value::Bool(true) => {}
            Value::Bool(false) => {
                let said = validation.message_expression.as_ref().map(|e| of(e, request, &variables)).transpose()?;
                let said = said.as_ref().and_then(Value::as_str).or(validation.message.as_deref());
                return Err(said.unwrap_or(&validation.expression).to_owned());
            }
            other => return Err(format!("{} is {other}", validation.expression)),
        }
    }
    Ok(())
}

fn matches(constraints: &Constraints, request: &Request) -> bool {
    constraints.resource_rules.iter().any(|rule| {
        rule.api_groups.contains(&request.group)
            && rule.api_versions.iter().any(|version| version == "v1")
            && rule.operations.contains(&request.operation)
            && rule.resources.contains(&request.resource)
    })
}

/// A requirement on another label holds for no namespace here, as for one without that label.
fn selects(resources: &Resources, namespace: &str) -> bool {
    resources.namespace_selector.match_expressions.iter().all(|requirement| {
        let listed = requirement.key == NAME && requirement.values.iter().any(|value| value == namespace);
        listed == (requirement.operator == SelectorOperator::In)
    })
}

/// One condition that is false outweighs another's error.
fn wanted(conditions: &[Named], request: &Request) -> Result<bool, String> {
    let said: Vec<_> = conditions.iter().map(|condition| of(&condition.expression, request, &json!({}))).collect();
    if said.contains(&Ok(Value::Bool(false))) {
        return Ok(false);
    }
    for (condition, said) in conditions.iter().zip(said) {
        if said? != Value::Bool(true) {
            return Err(format!("{} is no condition", condition.name));
        }
    }
    Ok(true)
}

/// A variable whose expression fails is missing to whoever asks for it, and to nobody else.
fn variables(named: &[Named], request: &Request) -> Value {
    let mut known = Map::new();
    for Named { name, expression } in named {
        if let Ok(value) = of(expression, request, &Value::Object(known.clone())) {
            known.insert(name.clone(), value);
        }
    }
    Value::Object(known)
}

fn of(expression: &str, request: &Request, variables: &Value) -> Result<Value, String> {
    let mut user = json!({ "username": request.user });
    if !request.groups.is_empty() {
        user["groups"] = json!(request.groups);
    }
    let asked = json!({ "operation": request.operation, "namespace": request.namespace, "userInfo": user });
    let all = [("request", &asked), ("object", &request.object), ("oldObject", &request.old), ("variables", variables)];
    evaluate(expression, &all)
}

/// What server-side apply does where nothing but objects is applied: members are set, others stay.
fn apply(to: &mut Value, applied: Value) {
    match (to, applied) {
        (Value::Object(to), Value::Object(applied)) => {
            for (name, value) in applied {
                apply(to.entry(name).or_insert(Value::Null), value);
            }
        }
        (to, applied) => *to = applied,
    }
}
