//! What a run leaves for people: `metrics.jsonl` and TensorBoard's event files, read by other code than wrote them.

use std::fs;
use std::path::Path;

use lapidary_train::{MetricsRow, TrainOptions};

use crate::task::{listing, model, options, train_quietly};

/// Trains six steps with a look at every other; the log and the event file.
fn leave(folder: &Path) -> (Vec<MetricsRow>, Vec<u8>) {
    let options = TrainOptions { evaluate_every: 2, ..options(6) };
    let rows = train_quietly(model(1), &options, folder).unwrap().rows;
    let names = listing(folder);
    let events: Vec<&String> = names.iter().filter(|name| name.starts_with("events.out.tfevents.")).collect();
    assert_eq!(events.len(), 1, "{names:?}");
    (rows, fs::read(folder.join(events[0])).unwrap())
}

#[test]
fn metrics_are_one_object_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, _) = leave(folder.path());
    let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert!(text.ends_with('\n'));
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    for ((step, line), row) in (1..).zip(&lines).zip(&rows) {
        assert_eq!(line["step"], step);
        assert_eq!(line["loss"].as_f64(), row.loss);
        assert_eq!(line["rate"].as_f64(), row.rate);
        assert_eq!(line["gradient_norm"].as_f64(), row.gradient_norm);
        assert_eq!(line["validation"].as_f64(), row.validation);
        assert_eq!(row.validation.is_some(), step % 2 == 0);
        assert!(line["seconds"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn events_are_what_tensorboard_reads() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, file) = leave(folder.path());
    let mut events = records(&file).into_iter().map(event);
    assert_eq!(events.next(), Some(Event { version: Some("brain.Event:2".into()), ..Event::default() }));
    let mut expected = Vec::new();
    for row in &rows {
        let values = [
            ("validation", row.validation),
            ("loss", row.loss),
            ("learning_rate", row.rate),
            ("gradient_norm", row.gradient_norm),
        ];
        for (tag, value) in values {
            let scalar = |value: f64| (tag.to_owned(), value as f32);
            expected.extend(value.map(|value| Event { step: row.step, version: None, scalar: Some(scalar(value)) }));
        }
    }
    assert_eq!(events.collect::<Vec<_>>(), expected);
}

/// The records of a TFRecord file: length in 8 bytes, its masked CRC, the data, its masked CRC.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    fn take<'a>(file: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (taken, rest) = file.split_at(n);
        *file = rest;
        taken
    }
    fn checked<'a>(file: &mut &'a [u8], n: usize) -> &'a [u8] {
        let data = take(file, n);
        assert_eq!(take(file, 4), masked(crc32c(data)).to_le_bytes());
        data
    }
    let mut records = Vec::new();
    while !file.is_empty() {
        let length = u64::from_le_bytes(checked(&mut file, 8).try_into().unwrap());
        records.push(checked(&mut file, length as usize));
    }
    records
}

/// Castagnoli's CRC, bit by bit.
fn crc32c(data: &[u8]) -> u32 {
    let byte =
        |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)));
    !data.iter().fold(u32::MAX, byte)
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `tensorflow.Event`, the fields in use.
#[derive(Debug, Default, PartialEq)]
struct Event {
    step: u64,
    version: Option<String>,
    scalar: Option<(String, f32)>,
}

fn event(message: &[u8]) -> Event {
    let mut event = Event::default();
    for field in fields(message) {
        match field {
            (1, Value::Fixed64(time)) => assert!(f64::from_le_bytes(time) > 1.6e9, "seconds since 1970"),
            (2, Value::Varint(step)) => event.step = step,
            (3, Value::Bytes(version)) => event.version = Some(text(version)),
            (5, Value::Bytes(summary)) => match fields(summary)[..] {
                [(1, Value::Bytes(value))] => match fields(value)[..] {
                    [(1, Value::Bytes(tag)), (2, Value::Fixed32(value))] => {
                        event.scalar = Some((text(tag), f32::from_le_bytes(value)));
                    }
                    ref other => panic!("not a value with a tag: {other:?}"),
                },
                ref other => panic!("not a summary of one value: {other:?}"),
            },
            other => panic!("an unknown field: {other:?}"),
        }
    }
    event
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[derive(Debug)]
enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// The fields of a protocol buffer with their numbers.
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let end = message.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (bytes, rest) = message.split_at(end);
        *message = rest;
        bytes.iter().rev().fold(0, |value, byte| (value << 7) | u64::from(byte & 0x7f))
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut message)),
            1 => {
                let (&bytes, rest) = message.split_first_chunk().unwrap();
                message = rest;
                Value::Fixed64(bytes)
            }
            2 => {
                let length = varint(&mut message);
                let (bytes, rest) = message.split_at(length as usize);
                message = rest;
                Value::Bytes(bytes)
            }
            5 => {
                let (&bytes, rest) = message.split_first_chunk().unwrap();
                message = rest;
                Value::Fixed32(bytes)
            }
            wire => panic!("wire type {wire}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}
