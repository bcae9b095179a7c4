//! What a pickle describes, without doing what it asks for: no name in it is looked up and nothing is called.
//!
//! A pickle is a program for a small stack machine (Python's `pickletools` has its instructions). Whatever it builds of
//! lists, dictionaries, numbers and texts is built here; a call becomes a [`Node::Call`] that keeps the function's name
//! and its arguments, for the reader to make sense of.

use std::collections::HashMap;
use std::io::{BufRead, Read};

/// A place among the nodes of a [`Pickle`]. Nodes are shared, as a pickle shares objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(usize);

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// None, a truth value, a set: whatever is of no use to a reader of tensors.
    Other,
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Tuples and lists.
    List(Vec<Id>),
    /// Pairs in the order in which they came.
    Dict(Vec<(Id, Id)>),
    /// A class or function by its module and name.
    Global(String, String),
    /// What a function or class would give for these arguments, and what was put into it afterwards.
    Call {
        function: Id,
        arguments: Id,
        items: Vec<(Id, Id)>,
    },
    /// An object that lies outside of the pickle, by what it is called.
    Outside(Id),
}

/// All objects of a pickle.
#[derive(Debug, Default)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: Option<Id>,
}

/// What can be wrong with a pickle: a sentence for the file's error.
pub type Fault = String;

/// The most bytes of a pickle. Tensors lie outside of it.
const LONGEST: u64 = 1 << 28;

/// Builds that are of use for this many instructions and no more: what they build stays in memory.
const MOST: usize = 1 << 24;

impl Pickle {
    /// Reads one pickle, up to and with the instruction that ends it.
    ///
    /// # Errors
    /// An instruction that is not known, one that finds something else on the stack than it needs, a pickle that ends
    /// early or is longer than any description of tensors.
    pub fn read(from: &mut dyn BufRead) -> Result<Self, Fault> {
        let mut machine = Machine::default();
        let mut input = Input { from: &mut from.take(LONGEST) };
        for _ in 0..MOST {
            if machine.step(&mut input)? {
                let root = machine.pop()?;
                return Ok(Self { nodes: machine.nodes, root: Some(root) });
            }
        }
        Err(format!("more than {MOST} instructions"))
    }

    /// The object that it is all about.
    pub fn root(&self) -> Option<Id> {
        self.root
    }

    /// All objects.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        (0..self.nodes.len()).map(Id)
    }

    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0]
    }

    pub fn int(&self, id: Id) -> Option<i64> {
        match self.node(id) {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn list(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// Pairs of a dictionary, or of an object that is filled like one.
    pub fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(pairs) | Node::Call { items: pairs, .. } => Some(pairs),
            _ => None,
        }
    }

    /// Module, name and arguments of a call.
    pub fn call(&self, id: Id) -> Option<(&str, &str, &[Id])> {
        let Node::Call { function, arguments, .. } = self.node(id) else { return None };
        match self.node(*function) {
            Node::Global(module, name) => Some((module, name, self.list(*arguments)?)),
            _ => None,
        }
    }
}

/// Bytes of a pickle.
struct Input<'a> {
    from: &'a mut dyn BufRead,
}

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|_| "it ends early".to_owned())?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.bytes::<1>()?[0])
    }

    /// As many bytes as are really there: memory is not taken for a length that is merely claimed.
    fn counted(&mut self, length: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let read = (&mut *self.from).take(length).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if read as u64 == length { Ok(bytes) } else { Err("it ends early".to_owned()) }
    }

    fn line(&mut self) -> Result<String, Fault> {
        let mut line = Vec::new();
        self.from.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
        match line.pop() {
            Some(b'\n') => utf8(line),
            _ => Err("it ends early".to_owned()),
        }
    }

    fn u32(&mut self) -> Result<u64, Fault> {
        Ok(u32::from_le_bytes(self.bytes()?).into())
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| "a text is not UTF-8".to_owned())
}

/// A number of any length in two's complement, as long as it fits.
fn long(bytes: &[u8]) -> Result<i64, Fault> {
    let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    // PyTorch's magic number is one of ten bytes; what is more than eight of is told by its first.
    let mut wide = [fill; 8];
    for (place, &byte) in bytes.iter().take(8).enumerate() {
        wide[place] = byte;
    }
    Ok(i64::from_le_bytes(wide))
}

fn number<T: std::str::FromStr>(line: &str) -> Result<T, Fault> {
    line.trim_end_matches('L').parse().map_err(|_| format!("{line:?} is no number"))
}

#[derive(Default)]
struct Machine {
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Where on the stack groups begin.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl Machine {
    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(Id(self.nodes.len() - 1));
    }

    fn pop(&mut self) -> Result<Id, Fault> {
        // What stands below a mark belongs to another group.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("it takes from an empty stack".to_owned());
        }
        self.stack.pop().ok_or_else(|| "it takes from an empty stack".to_owned())
    }

    fn top(&self) -> Result<Id, Fault> {
        self.stack.last().copied().ok_or_else(|| "it looks at an empty stack".to_owned())
    }

    /// Everything since the last mark.
    fn group(&mut self) -> Result<Vec<Id>, Fault> {
        let mark = self.marks.pop().ok_or("it closes a group that was not opened")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn several(&mut self, count: usize) -> Result<Vec<Id>, Fault> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn append(&mut self, to: Id, items: Vec<Id>) -> Result<(), Fault> {
        match &mut self.nodes[to.0] {
            Node::List(list) => list.extend(items),
            // Sets and what subclasses of lists are called with.
            Node::Other | Node::Call { .. } => {}
            _ => return Err("it appends to what is no list".to_owned()),
        }
        Ok(())
    }

    fn put(&mut self, into: Id, items: Vec<Id>) -> Result<(), Fault> {
        let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        match &mut self.nodes[into.0] {
            Node::Dict(known) | Node::Call { items: known, .. } => known.extend(pairs),
            _ => return Err("it puts a pair into what is no dictionary".to_owned()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u64) -> Result<(), Fault> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), Fault> {
        let known =
            self.memo.get(&key).copied().ok_or_else(|| format!("it recalls number {key}, which it never kept"))?;
        self.stack.push(known);
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), Fault> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        self.push(Node::Call { function, arguments, items: Vec::new() });
        Ok(())
    }

    /// One instruction; true for the last.
    fn step(&mut self, input: &mut Input) -> Result<bool, Fault> {
        let instruction = input.byte()?;
        match instruction {
            b'.' => return Ok(true),
            0x80 => {
                input.byte()?;
            }
            // The length of a frame.
            0x95 => {
                input.u64()?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.group()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' | 0x88 | 0x89 | 0x8f => self.push(Node::Other),
            b'J' => {
                let value = i32::from_le_bytes(input.bytes()?);
                self.push(Node::Int(value.into()));
            }
            b'K' => {
                let value = input.byte()?;
                self.push(Node::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(input.bytes()?);
                self.push(Node::Int(value.into()));
            }
            b'I' | b'L' => {
                let value = number(&input.line()?)?;
                self.push(Node::Int(value));
            }
            0x8a | 0x8b => {
                let length = if instruction == 0x8a { input.byte()?.into() } else { input.u32()? };
                let value = long(&input.counted(length)?)?;
                self.push(Node::Int(value));
            }
            b'F' => {
                let value = number(&input.line()?)?;
                self.push(Node::Float(value));
            }
            b'G' => {
                let value = f64::from_be_bytes(input.bytes()?);
                self.push(Node::Float(value));
            }
            b'X' | 0x8c | 0x8d => {
                let length = match instruction {
                    b'X' => input.u32()?,
                    0x8c => input.byte()?.into(),
                    _ => input.u64()?,
                };
                let text = utf8(input.counted(length)?)?;
                self.push(Node::Text(text));
            }
            b'V' | b'S' => {
                let line = input.line()?;
                let text = line.trim_matches(['\'', '"']).to_owned();
                self.push(Node::Text(text));
            }
            b'T' | b'U' => {
                // Texts of Python 2, such as the names of parameters in its files.
                let length = if instruction == b'U' { input.byte()?.into() } else { input.u32()? };
                let bytes = input.counted(length)?;
                self.push(match String::from_utf8(bytes) {
                    Ok(text) => Node::Text(text),
                    Err(error) => Node::Bytes(error.into_bytes()),
                });
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                let length = match instruction {
                    b'B' => input.u32()?,
                    b'C' => input.byte()?.into(),
                    _ => input.u64()?,
                };
                let bytes = input.counted(length)?;
                self.push(Node::Bytes(bytes));
            }
            b')' | b']' => self.push(Node::List(Vec::new())),
            b't' | b'l' => {
                let items = self.group()?;
                self.push(Node::List(items));
            }
            0x85..=0x87 => {
                let items = self.several(usize::from(instruction - 0x84))?;
                self.push(Node::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                let list = self.top()?;
                self.append(list, vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.group()?;
                let list = self.top()?;
                self.append(list, items)?;
            }
            0x91 => {
                self.group()?;
                self.push(Node::Other);
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.group()?;
                self.push(Node::Dict(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()));
            }
            b's' => {
                let pair = self.several(2)?;
                let dict = self.top()?;
                self.put(dict, pair)?;
            }
            b'u' => {
                let items = self.group()?;
                let dict = self.top()?;
                self.put(dict, items)?;
            }
            b'c' => {
                let (module, name) = (input.line()?, input.line()?);
                self.push(Node::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.nodes[module.0], &self.nodes[name.0]) {
                    (Node::Text(module), Node::Text(name)) => self.push(Node::Global(module.clone(), name.clone())),
                    _ => return Err("the name of a function is no text".to_owned()),
                }
            }
            b'R' | 0x81 => self.reduce()?,
            0x92 => {
                self.pop()?;
                self.reduce()?;
            }
            // The state of an object that is not made: attributes, such as `_metadata` of a state dict.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Node::Outside(name));
            }
            b'P' => {
                let name = input.line()?;
                self.nodes.push(Node::Text(name));
                let name = Id(self.nodes.len() - 1);
                self.push(Node::Outside(name));
            }
            b'p' | b'q' | b'r' | 0x94 => {
                let key = match instruction {
                    b'p' => number(&input.line()?)?,
                    b'q' => input.byte()?.into(),
                    b'r' => input.u32()?,
                    _ => self.memo.len() as u64,
                };
                self.remember(key)?;
            }
            b'g' | b'h' | b'j' => {
                let key = match instruction {
                    b'g' => number(&input.line()?)?,
                    b'h' => input.byte()?.into(),
                    _ => input.u32()?,
                };
                self.recall(key)?;
            }
            other => return Err(format!("instruction {other:#04x} is not one of those that describe tensors")),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pickle, Fault> {
        Pickle::read(&mut &bytes[..])
    }

    #[test]
    fn objects_are_shared_and_filled_later() {
        // d = {}; [d, d] with d["a"] = 7 put in after it was first mentioned.
        let pickle = read(b"\x80\x02](}q\x00h\x00e0}q\x01X\x01\x00\x00\x00aK\x07sh\x01\x86.").unwrap();
        let root = pickle.list(pickle.root().unwrap()).unwrap();
        assert_eq!(root[0], root[1]);
        let pairs = pickle.pairs(root[0]).unwrap();
        assert_eq!((pickle.text(pairs[0].0), pickle.int(pairs[0].1)), (Some("a"), Some(7)));
    }

    #[test]
    fn numbers_of_every_form() {
        for (bytes, value) in [
            (&b"K\xff."[..], 255),
            (b"M\x01\x02.", 513),
            (b"J\xff\xff\xff\xff.", -1),
            (b"\x8a\x02\x00\x80.", -32768),
            (b"\x8a\x00.", 0),
            (b"I12\n.", 12),
            (b"L-3L\n.", -3),
        ] {
            let pickle = read(bytes).unwrap();
            assert_eq!(pickle.int(pickle.root().unwrap()), Some(value), "{bytes:?}");
        }
    }

    #[test]
    fn nothing_is_called() {
        let pickle = read(b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap();
        let (module, name, arguments) = pickle.call(pickle.root().unwrap()).unwrap();
        assert_eq!((module, name, pickle.text(arguments[0])), ("os", "system", Some("ls")));
    }

    #[test]
    fn what_is_broken_is_told() {
        for (bytes, expected) in [
            (&b""[..], "ends early"),
            (b"K", "ends early"),
            (b"X\xff\xff\xff\xffa.", "ends early"),
            (b".", "empty stack"),
            (b"(K\x01t0.", "empty stack"),
            (b"K\x01(0.", "empty stack"),
            (b"t.", "not opened"),
            (b"h\x05.", "never kept"),
            (b"K\x01K\x02a.", "no list"),
            (b"K\x01K\x02K\x03s.", "no dictionary"),
            (b"\x82\x01.", "instruction 0x82"),
            (b"X\x01\x00\x00\x00\xff.", "UTF-8"),
            (b"Ix\n.", "no number"),
            (b"K\x01K\x02\x93.", "no text"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(expected), "{bytes:?}: {error}");
        }
    }
}
