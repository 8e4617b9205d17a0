//! Changes a spec where the schema says that something stands.
use super::fields::{ANYTHING, Field, SPEC};
use crate::random::Random;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A step on the way to a field; an item is any one of its list.
#[derive(Debug, Clone, Copy)]
enum Step {
    Key(&'static str),
    Item(&'static [&'static str]),
}

/// A field and the way to it.
#[derive(Debug, Clone)]
pub struct Place {
    way: Vec<Step>,
    field: &'static Field,
}

/// Every field that there is.
pub static PLACES: LazyLock<Vec<Place>> = LazyLock::new(|| {
    let mut all = Vec::new();
    collect(&SPEC, &mut Vec::new(), &mut all);
    all
});

fn collect(field: &'static Field, way: &mut Vec<Step>, all: &mut Vec<Place>) {
    all.push(Place { way: way.clone(), field });
    match field {
        Field::Leaf(_) | Field::Map(_) => {}
        Field::List(of, items) => {
            way.push(Step::Item(items));
            collect(of, way, all);
            way.pop();
        }
        Field::Object(members) => {
            for (key, member) in *members {
                way.push(Step::Key(key));
                collect(member, way, all);
                way.pop();
            }
        }
    }
}

/// So many changes, the same for the same chance, and what they were.
pub fn bend(random: &mut Random, good: &Value, count: usize) -> (Value, Vec<String>) {
    let mut spec = good.clone();
    let mut changes = Vec::new();
    for _ in 0..count {
        if let Some(place) = PLACES.get(random.below(PLACES.len())) {
            // What a field may hold more often than what it may not: else hardly a spec comes past the parser.
            let choices = if random.below(4) == 0 { place.choices() } else { place.own() };
            let choice = random.below(choices);
            changes.push(place.change(random, choice, &mut spec));
        }
    }
    (spec, changes)
}

impl Place {
    /// How many ways there are to change it.
    #[must_use]
    pub fn choices(&self) -> usize {
        match self.field {
            Field::Leaf(own) => own.len() + ANYTHING.len() + 1,
            Field::List(_, items) => items.len() + 4,
            Field::Map(pairs) => pairs.iter().map(|(_, values)| values.len()).sum::<usize>() + 2,
            Field::Object(members) => members.len() + 3,
        }
    }

    /// Those that put a value there that is of the field's own.
    fn own(&self) -> usize {
        match self.field {
            Field::Leaf(own) if !own.is_empty() => own.len(),
            Field::List(_, items) => items.len() + 2,
            Field::Map(pairs) => pairs.iter().map(|(_, values)| values.len()).sum::<usize>().max(1),
            Field::Leaf(_) | Field::Object(_) => self.choices(),
        }
    }

    /// Changes the spec there, and says how.
    pub fn change(&self, random: &mut Random, choice: usize, spec: &mut Value) -> String {
        let mut at = String::new();
        let mut value = spec;
        for step in &self.way {
            value = walk(random, value, *step, &mut at);
        }
        let how = match self.field {
            Field::Leaf(own) => {
                let words = own.iter().chain(ANYTHING);
                set(value, words.map(|word| read(word)).nth(choice).unwrap_or_else(long))
            }
            Field::List(_, items) => list(random, value, choice, items),
            Field::Map(pairs) => map(value, choice, pairs),
            Field::Object(members) => object(value, choice, members),
        };
        format!("{at}{how}")
    }
}

/// One step on; what is not there is made.
fn walk<'a>(random: &mut Random, value: &'a mut Value, step: Step, at: &mut String) -> &'a mut Value {
    match step {
        Step::Key(key) => {
            if !value.is_object() {
                *value = json!({});
            }
            at.push_str(&format!("{}{key}", if at.is_empty() { "" } else { "." }));
            &mut value[key]
        }
        Step::Item(items) => {
            if !value.is_array() {
                *value = json!([]);
            }
            let length = value.as_array().map_or(0, Vec::len);
            // One more now and then: what is there already may be needed as it is.
            let index = if length == 0 || random.below(4) == 0 { length } else { random.below(length) };
            if index == length
                && let Some(list) = value.as_array_mut()
            {
                list.push(items.get(random.below(items.len())).map_or(Value::Null, |item| read(item)));
            }
            at.push_str(&format!("[{index}]"));
            &mut value[index]
        }
    }
}

/// A value of the table. That each is JSON is a test.
fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn long() -> Value {
    Value::from("x".repeat(5000))
}

fn set(value: &mut Value, new: Value) -> String {
    let shown: String = new.to_string().chars().take(80).collect();
    *value = new;
    format!(" = {shown}")
}

fn list(random: &mut Random, value: &mut Value, choice: usize, items: &[&str]) -> String {
    if !value.is_array() {
        *value = json!([]);
    }
    let Some(list) = value.as_array_mut() else { return String::new() };
    let index = random.below(list.len());
    match (items.get(choice), choice - choice.min(items.len())) {
        (Some(item), _) => {
            list.push(read(item));
            format!(" + {item}")
        }
        (None, 0) if !list.is_empty() => {
            let gone = list.remove(index);
            format!(" - {gone}")
        }
        (None, 1) if !list.is_empty() => {
            let twice = list[index].clone();
            list.insert(random.below(list.len() + 1), twice.clone());
            format!(" + {twice} once more")
        }
        (None, 2) => set(value, Value::Null),
        _ => set(value, read(ANYTHING[random.below(ANYTHING.len())])),
    }
}

fn map(value: &mut Value, choice: usize, pairs: &[(&str, &[&str])]) -> String {
    if !value.is_object() {
        *value = json!({});
    }
    let all = pairs.iter().flat_map(|(key, values)| values.iter().map(move |text| (*key, *text)));
    match (all.clone().nth(choice), choice - choice.min(all.count())) {
        (Some((key, text)), _) => {
            value[key] = read(text);
            format!(".{key} = {text}")
        }
        (None, 0) => set(value, Value::Null),
        _ => {
            value["made.up/key"] = json!("x");
            ".made.up/key = x".into()
        }
    }
}

fn object(value: &mut Value, choice: usize, members: &[(&str, Field)]) -> String {
    if !value.is_object() {
        *value = json!({});
    }
    let Some(object) = value.as_object_mut() else { return String::new() };
    match (members.get(choice), choice - choice.min(members.len())) {
        // In another case, which some readers take for the same key.
        (Some((key, _)), _) => {
            let other = key.to_uppercase();
            let member = object.remove(*key).unwrap_or(Value::Null);
            object.insert(other.clone(), member);
            format!(".{key} is called {other}")
        }
        (None, 0) => {
            object.insert("frobnicate".into(), json!(true));
            ".frobnicate = true".into()
        }
        (None, 1) => {
            object.clear();
            " = {}".into()
        }
        _ => set(value, Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_bends_the_same_way() {
        let good = json!({ "process": { "env": ["A=1"] } });
        let bent = |seed| bend(&mut Random(seed), &good, 3);
        let all: Vec<_> = (0..500).map(bent).collect();
        assert!((0..500).zip(&all).all(|(seed, made)| bent(seed) == *made));
        assert!(all.iter().filter(|(spec, _)| *spec != good).count() > 480);
        assert!(all.iter().all(|(_, changes)| changes.len() == 3));
    }

    #[test]
    fn the_tables_hold_json() {
        let of = |place: &Place| match place.field {
            Field::Leaf(words) => words.to_vec(),
            Field::List(_, items) => items.to_vec(),
            Field::Map(pairs) => pairs.iter().flat_map(|(_, values)| values.iter().copied()).collect(),
            Field::Object(_) => Vec::new(),
        };
        for text in PLACES.iter().flat_map(of).chain(ANYTHING.iter().copied()) {
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
    }

    /// Whatever there is: each choice of each place can be made, in a spec that has nothing and in one that has the place.
    #[test]
    fn every_field_can_be_changed() {
        assert!(PLACES.len() > 250, "{}", PLACES.len());
        let mut random = Random(1);
        for place in PLACES.iter() {
            let mut spec = Value::Null;
            for choice in (0..place.choices()).chain(0..place.choices()) {
                let how = place.change(&mut random, choice, &mut spec);
                assert!(!how.is_empty(), "{place:?}");
            }
        }
    }
}
