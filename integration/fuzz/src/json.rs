//! Changes a JSON document as a tree: what comes out is JSON, and most often what fits.

use serde_json::{Map, Number, Value};

/// Puts a changed document in the place of the first `size` bytes of `data`, and returns its
/// length. Every eighth time, and where there is no JSON, the bytes are changed, by `bytes`.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    bytes: fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Random(u64::from(seed) << 1 | 1);
    let parsed = data.get(..size).and_then(|text| serde_json::from_slice::<Value>(text).ok());
    let Some(mut document) = parsed.filter(|_| random.below(8) != 0) else {
        return bytes(data, size, max_size);
    };
    for _ in 0..=random.below(3) {
        let pool = pool(&document);
        let node = random.below(count(&document));
        change(nth(&mut document, node), &pool, &mut random, bytes);
    }
    let Ok(text) = serde_json::to_vec(&document) else { return bytes(data, size, max_size) };
    match data.get_mut(..text.len()).filter(|_| text.len() <= max_size) {
        Some(place) => {
            place.copy_from_slice(&text);
            text.len()
        }
        None => bytes(data, size, max_size),
    }
}

/// xorshift64*: a document changed with the same seed is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(1).max(1);
        usize::try_from(self.next() % end).unwrap_or_default()
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len()))
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// The node of this number, in the order in which they are written.
fn nth(value: &mut Value, number: usize) -> &mut Value {
    let mut left = number;
    if left == 0 || !(value.is_array() || value.is_object()) {
        return value;
    }
    left -= 1;
    let children: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for child in children {
        let below = count(child);
        if left < below {
            return nth(child, left);
        }
        left -= below;
    }
    unreachable!("a number below the count of nodes")
}

/// Parts of the document itself, to be put elsewhere in it.
fn pool(value: &Value) -> Vec<Value> {
    let mut pool = vec![value.clone()];
    match value {
        Value::Array(items) => pool.extend(items.iter().flat_map(self::pool)),
        Value::Object(fields) => {
            pool.extend(fields.keys().cloned().map(Value::String));
            pool.extend(fields.values().flat_map(self::pool));
        }
        _ => {}
    }
    pool.retain(|part| count(part) < 64);
    pool
}

fn change(
    value: &mut Value,
    pool: &[Value],
    random: &mut Random,
    bytes: fn(&mut [u8], usize, usize) -> usize,
) {
    match (value, random.below(6)) {
        (value, 0) => *value = another(random),
        (value, 1) => *value = random.of(pool).cloned().unwrap_or_default(),
        (Value::String(text), _) => *text = other_text(text, random, bytes),
        (Value::Number(number), _) => *number = other_number(number, random),
        (Value::Array(items), choice) => change_array(items, choice, pool, random),
        (Value::Object(fields), choice) => change_object(fields, choice, pool, random),
        (value, _) => *value = another(random),
    }
}

fn change_array(items: &mut Vec<Value>, choice: usize, pool: &[Value], random: &mut Random) {
    let at = random.below(items.len());
    match choice {
        2 if !items.is_empty() => drop(items.remove(at)),
        3 if !items.is_empty() => items.insert(at, items.get(at).cloned().unwrap_or_default()),
        4 => items.insert(at, random.of(pool).cloned().unwrap_or_default()),
        _ => {
            let other = random.below(items.len());
            if at < items.len() {
                items.swap(at, other);
            }
        }
    }
}

fn change_object(
    fields: &mut Map<String, Value>,
    choice: usize,
    pool: &[Value],
    random: &mut Random,
) {
    let key = fields.keys().nth(random.below(fields.len())).cloned().unwrap_or_default();
    match choice {
        2 => drop(fields.remove(&key)),
        3 => {
            let value = fields.remove(&key).unwrap_or_default();
            let names: Vec<&str> = pool.iter().filter_map(Value::as_str).collect();
            let name = random.of(&names).copied().unwrap_or_default().to_owned();
            fields.insert(name, value);
        }
        _ => {
            let names: Vec<&str> = pool.iter().filter_map(Value::as_str).collect();
            let name = random.of(&names).copied().unwrap_or_default().to_owned();
            fields.insert(name, random.of(pool).cloned().unwrap_or_default());
        }
    }
}

fn another(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::Bool(false),
        3 => Value::Array(Vec::new()),
        4 => Value::Object(Map::new()),
        5 => Value::String(random.of(&TEXTS).map_or_else(String::new, |text| (*text).to_owned())),
        6 => Value::Number(Number::from_f64(1e300).unwrap_or(Number::from(0))),
        _ => Value::Number(other_number(&Number::from(0), random)),
    }
}

/// Texts at which parsers have stumbled.
const TEXTS: [&str; 20] = [
    "",
    "/",
    ".",
    "..",
    "a/../../b",
    "//",
    "\0",
    "\n",
    "a=b",
    "=",
    ":",
    ",",
    "-1",
    "0-4294967295",
    "18446744073709551616",
    "+0",
    "max",
    "\u{1f4a9}",
    "%s%n",
    "/proc/self/fd/0",
];

fn other_text(
    text: &str,
    random: &mut Random,
    bytes: fn(&mut [u8], usize, usize) -> usize,
) -> String {
    match random.below(8) {
        0 => random.of(&TEXTS).copied().unwrap_or_default().to_owned(),
        1 => format!("{text}{text}"),
        2 => format!("{text}{}", random.of(&TEXTS).copied().unwrap_or_default()),
        3 => "a".repeat(1 << random.below(13)),
        _ => {
            let mut buffer = text.as_bytes().to_vec();
            let (size, room) = (buffer.len(), buffer.len() + 16);
            buffer.resize(room, 0);
            let length = bytes(&mut buffer, size, room);
            buffer.truncate(length);
            String::from_utf8_lossy(&buffer).into_owned()
        }
    }
}

fn other_number(number: &Number, random: &mut Random) -> Number {
    const EDGES: [i128; 16] = [
        0,
        1,
        -1,
        2,
        255,
        4095,
        4096,
        65535,
        1 << 20,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        (1 << 63) - 1,
        -(1 << 63),
        (1 << 64) - 1,
        -2,
    ];
    let present = number.as_i128().unwrap_or_default();
    let wanted = match random.below(4) {
        0 => present.saturating_add(1),
        1 => present.saturating_sub(1),
        _ => random.of(&EDGES).copied().unwrap_or_default(),
    };
    Number::from_i128(wanted).unwrap_or_else(|| Number::from(0))
}
