//! TensorBoard event files: protocol buffers in TFRecord framing, written by hand since the crate for it is stale.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::TrainError;

/// Writes scalars that TensorBoard shows.
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// A new event file in `folder`; TensorBoard merges the files of a folder.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(folder: &Path) -> Result<Self, TrainError> {
        let (seconds, _) = now();
        let mut attempt = 0;
        loop {
            let name = format!("events.out.tfevents.{}.lapidary.{attempt}", seconds as u64);
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut writer = Self { path, file: BufWriter::new(file) };
                    writer.event(0, &field_bytes(3, b"brain.Event:2"))?;
                    return Ok(writer);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => attempt += 1,
                Err(source) => return Err(TrainError::Log { path, source }),
            }
        }
    }

    /// One value of a curve.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<(), TrainError> {
        let mut entry = field_bytes(1, tag.as_bytes());
        entry.push(2 << 3 | 5); // simple_value, 32 bits
        entry.extend((value as f32).to_le_bytes());
        let summary = field_bytes(1, &entry);
        self.event(step, &field_bytes(5, &summary))
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), TrainError> {
        self.file.flush().map_err(|source| TrainError::Log { path: self.path.clone(), source })
    }

    fn event(&mut self, step: u64, what: &[u8]) -> Result<(), TrainError> {
        let (_, wall_time) = now();
        let mut event = vec![1 << 3 | 1]; // wall_time, 64 bits
        event.extend(wall_time.to_le_bytes());
        event.push(2 << 3); // step, varint
        event.extend(varint(step));
        event.extend(what);
        self.file.write_all(&record(&event)).map_err(|source| TrainError::Log { path: self.path.clone(), source })
    }
}

fn now() -> (f64, f64) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    (seconds.floor(), seconds)
}

/// A TFRecord: length, its masked CRC, the data, its masked CRC.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn field_bytes(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_those_of_protocol_buffers() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(127), [127]);
        assert_eq!(varint(300), [0xac, 0x02]);
    }

    #[test]
    fn records_are_framed_as_tensorflow_frames_them() {
        // The first record of every event file that TensorFlow writes, but for its time.
        let record = record(b"abc");
        assert_eq!(&record[..8], &3u64.to_le_bytes());
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
        assert_eq!(record.len(), 8 + 4 + 3 + 4);
    }
}
