//! CEL, as the API server has it for admission: the standard library, optionals, and `Object` for what a mutation applies.
use cel::common::types::{MAP_TYPE, Type};
use cel::{Context, Env, Program, StructDef};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Where a mutation may write: each folder of these is a type, `Object.spec.template` has the field `metadata` of the type
/// `Object.spec.template.metadata`. The API server takes such types from the names alone.
const PATHS: &[&str] = &[
    "metadata.annotations",
    "spec.template.metadata.annotations",
    "spec.jobTemplate.spec.template.metadata.annotations",
];

static ENV: LazyLock<Result<Arc<Env>, String>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let mut fields = BTreeMap::<String, Vec<(String, Type)>>::new();
    for path in PATHS {
        let mut parent = "Object".to_owned();
        for part in path.split('.') {
            let own = format!("{parent}.{part}");
            let kind = if part == "annotations" { MAP_TYPE } else { Type::new_struct(own.clone()) };
            let known = fields.entry(parent).or_default();
            if known.iter().all(|(name, _)| name != part) {
                known.push((part.to_owned(), kind));
            }
            parent = own;
        }
    }
    for (name, fields) in fields {
        let definition = fields.into_iter().fold(StructDef::new(name), |d, (field, kind)| d.add_field(field, kind));
        env.add_type(definition).map_err(|e| format!("{e:?}"))?;
    }
    Ok(Arc::new(env))
});

/// Compiled once: that takes the most time of a decision.
static COMPILED: Mutex<BTreeMap<String, Arc<Program>>> = Mutex::new(BTreeMap::new());

fn compiled(env: &Env, expression: &str) -> Result<Arc<Program>, String> {
    let mut known = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = known.get(expression) {
        return Ok(Arc::clone(program));
    }
    let program = Arc::new(env.compile(expression).map_err(|e| format!("{expression}: {e}"))?);
    known.insert(expression.to_owned(), Arc::clone(&program));
    Ok(program)
}

/// What the expression says, with these variables.
///
/// # Errors
/// It does not compile, or its evaluation fails.
pub(crate) fn evaluate(expression: &str, variables: &[(&str, &Value)]) -> Result<Value, String> {
    let env = ENV.as_ref()?;
    let program = compiled(env, expression)?;
    let mut context = Context::with_env(Arc::clone(env));
    for (name, value) in variables {
        context.add_variable(*name, value).map_err(|e| format!("{name}: {e}"))?;
    }
    let said = program.execute(&context).map_err(|e| format!("{expression}: {e}"))?;
    json(&said)
}

fn json(value: &cel::Value) -> Result<Value, String> {
    let cel::Value::Struct(object) = value else { return value.json().map_err(|e| e.to_string()) };
    let mut members = Map::new();
    for (name, field) in object.field_values() {
        let field = cel::Value::try_from(field.as_ref()).map_err(|e| format!("{name}: {e}"))?;
        members.insert(name, json(&field)?);
    }
    Ok(Value::Object(members))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_applied_has_types() {
        let good = "Object{spec: Object.spec{template: Object.spec.template{}}}";
        assert_eq!(evaluate(good, &[]), Ok(json!({ "spec": { "template": {} } })));
        for bad in [
            "Object{spec: Object.metadata{}}",
            "Object{spec: {'template': {}}}",
            "Object{other: Object.spec{}}",
            "Object.nothing{}",
            "Object{metadata: Object.metadata{annotations: 'owner'}}",
        ] {
            assert!(evaluate(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_language_is_the_one_of_admission() {
        let object = json!({ "metadata": { "annotations": { "a/b": "x" } }, "replicas": 3 });
        for (expression, expected) in [
            ("object.metadata.?annotations[?'a/b'].orValue('')", Ok(json!("x"))),
            ("object.metadata.?annotations[?'b'].orValue('')", Ok(json!(""))),
            ("object.?labels[?'b'].orValue('')", Ok(json!(""))),
            ("object.?labels[?'b'].hasValue()", Ok(json!(false))),
            ("has(object.labels)", Ok(json!(false))),
            ("object.replicas == 3", Ok(json!(true))),
            ("object.metadata == null", Ok(json!(false))),
            ("object.metadata == dyn(object).metadata", Ok(json!(true))),
            ("old == null", Ok(json!(true))),
            // An error on one side of a disjunction does not matter where the other decides.
            ("object.labels == 'x' || true", Ok(json!(true))),
            ("object.labels == 'x'", Err(())),
            ("old.metadata", Err(())),
            ("object.", Err(())),
        ] {
            let said = evaluate(expression, &[("object", &object), ("old", &Value::Null)]);
            assert_eq!(said.clone().map_err(|_| ()), expected, "{expression}: {said:?}");
        }
    }
}
