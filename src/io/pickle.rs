//! A pickle reader that executes nothing: it builds plain values and the few calls that make up a torch state
//! dictionary, and refuses every other name.
//!
//! Values live in one arena and refer to each other by index, so that hostile nesting costs no stack, neither while
//! reading nor when dropped.

use std::collections::HashMap;

use super::pickle_value::{Global, Id, Node, Storage, View, global};

type Outcome<T> = Result<T, String>;

/// Most dimensions of a tensor, and bytes of a storage's name, which is a number in torch's files: every reference to one is a copy.
const MAX_DIMENSIONS: usize = 8;
const MAX_KEY: usize = 64;

/// The pickle's value: the arena and the root in it.
pub(super) struct Pickle {
    pub nodes: Vec<Node>,
    pub root: Id,
}

/// Reads a pickle. The error is a clause without the file's name.
pub(super) fn read(bytes: &[u8]) -> Outcome<Pickle> {
    let mut machine = Machine { bytes, ..Machine::default() };
    loop {
        let opcode = machine.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { nodes: machine.nodes, root });
        }
        machine.step(opcode)?;
    }
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Outcome<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(count).ok_or("the pickle ends too early")?;
        self.bytes = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian unsigned integer of up to 8 bytes.
    fn unsigned(&mut self, size: usize) -> Outcome<u64> {
        Ok(self.take(size)?.iter().rev().fold(0, |value, &b| (value << 8) | u64::from(b)))
    }

    fn line(&mut self) -> Outcome<&'a str> {
        let end = self.bytes.iter().position(|&b| b == b'\n').ok_or("the pickle ends inside a name")?;
        let line = self.take(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| "a name in the pickle is not text".into())
    }

    fn text(&mut self, size: u64) -> Outcome<()> {
        let size = usize::try_from(size).map_err(|_| "a string is too long")?;
        let text = std::str::from_utf8(self.take(size)?).map_err(|_| "a string in the pickle is not text")?;
        self.push(Node::Text(text.to_owned()));
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    /// Pops a value, never below the innermost open mark.
    fn pop(&mut self) -> Outcome<Id> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err("the pickle takes a value that is not there".into());
        }
        self.stack.pop().ok_or_else(|| "the pickle takes a value that is not there".into())
    }

    fn pop_to_mark(&mut self) -> Outcome<Vec<Id>> {
        let height = self.marks.pop().ok_or("the pickle closes a mark that is not open")?;
        Ok(self.stack.split_off(height))
    }

    fn top(&self) -> Outcome<Id> {
        self.stack.last().copied().ok_or_else(|| "the pickle uses a value that is not there".into())
    }

    fn remember(&mut self, slot: u32) -> Outcome<()> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Outcome<()> {
        let id = *self.memo.get(&slot).ok_or("the pickle recalls a value it never stored")?;
        self.stack.push(id);
        Ok(())
    }

    fn step(&mut self, opcode: u8) -> Outcome<()> {
        match opcode {
            0x80 => match self.byte()? {
                2..=5 => {}
                other => return Err(format!("pickle protocol {other} is not read, only 2 to 5")),
            },
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'N' => self.push(Node::None),
            0x88 | 0x89 => self.push(Node::Bool),
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => {
                let value = self.unsigned(4)? as u32 as i32;
                self.push(Node::Int(value.into()));
            }
            0x8a => self.long()?,
            b'G' => {
                self.take(8)?;
                self.push(Node::Float);
            }
            b'X' => self.sized_text(4)?,
            0x8c => self.sized_text(1)?,
            0x8d => self.sized_text(8)?,
            b')' => self.push(Node::Tuple(Vec::new())),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Node::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.extend_list(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_list(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_dict(&items)?;
            }
            b'q' => {
                let slot = self.byte()?;
                self.remember(slot.into())?;
            }
            b'r' => {
                let slot = self.unsigned(4)? as u32;
                self.remember(slot)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let slot = self.byte()?;
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = self.unsigned(4)? as u32;
                self.recall(slot)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(global(module, name)?));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Text(module), Node::Text(name)) = (&self.nodes[module], &self.nodes[name]) else {
                    return Err("the pickle names a global by something that is not text".into());
                };
                let global = global(module, name)?;
                self.push(Node::Global(global));
            }
            b'Q' => self.persistent()?,
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => return Err(format!("pickle opcode 0x{other:02x} has no place in a state dictionary")),
        }
        Ok(())
    }

    fn integer(&mut self, size: usize) -> Outcome<()> {
        let value = self.unsigned(size)? as i64;
        self.push(Node::Int(value));
        Ok(())
    }

    fn sized_text(&mut self, size: usize) -> Outcome<()> {
        let length = self.unsigned(size)?;
        self.text(length)
    }

    /// A two's complement integer with its size in front.
    fn long(&mut self) -> Outcome<()> {
        let size = usize::from(self.byte()?);
        if size > 8 {
            return Err("an integer in the pickle is wider than 64 bits".into());
        }
        let raw = self.unsigned(size)?;
        let unused = 64 - 8 * size as u32;
        let value = if size == 0 { 0 } else { ((raw << unused) as i64) >> unused };
        self.push(Node::Int(value));
        Ok(())
    }

    fn extend_list(&mut self, items: &[Id]) -> Outcome<()> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::List(list) => list.extend_from_slice(items),
            other => return Err(format!("the pickle appends to {}", other.kind())),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Outcome<()> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Dict(_) if !items.len().is_multiple_of(2) => Err("the pickle sets a key without a value".into()),
            Node::Dict(dict) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            other => Err(format!("the pickle sets an item of {}", other.kind())),
        }
    }

    /// torch's reference to a storage: ('storage', type, key, device, count).
    fn persistent(&mut self) -> Outcome<()> {
        let id = self.pop()?;
        let bad = || "the pickle refers to something that is not a storage".to_owned();
        let Node::Tuple(items) = &self.nodes[id] else { return Err(bad()) };
        let [tag, kind, key, _device, count] = items[..] else { return Err(bad()) };
        let storage = match (&self.nodes[tag], &self.nodes[kind], &self.nodes[key], &self.nodes[count]) {
            (Node::Text(tag), Node::Global(Global::Storage(element)), Node::Text(key), Node::Int(count))
                if tag == "storage" && key.len() <= MAX_KEY =>
            {
                Storage { element: *element, key: key.clone(), count: usize::try_from(*count).map_err(|_| bad())? }
            }
            _ => return Err(bad()),
        };
        self.push(Node::Storage(storage));
        Ok(())
    }

    fn call(&mut self) -> Outcome<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Node::Tuple(arguments) = &self.nodes[arguments] else {
            return Err("the pickle calls with something that is not a tuple".into());
        };
        let node = match &self.nodes[function] {
            Node::Global(Global::OrderedDict) if arguments.is_empty() => Node::Dict(Vec::new()),
            Node::Global(Global::RebuildTensor) => Node::View(self.view(arguments)?),
            Node::Global(Global::RebuildParameter) => match arguments.first().map(|&id| &self.nodes[id]) {
                Some(Node::View(view)) => Node::View(view.clone()),
                _ => return Err("a parameter in the pickle is not a tensor".into()),
            },
            other => return Err(format!("the pickle calls {} in a way that has no place here", other.kind())),
        };
        self.push(node);
        Ok(())
    }

    /// The arguments of torch's `_rebuild_tensor_v2`: storage, offset, shape, stride, and what only training needs.
    fn view(&self, arguments: &[Id]) -> Outcome<View> {
        let bad = || "a tensor in the pickle is malformed".to_owned();
        let [storage, offset, shape, stride, ..] = arguments[..] else { return Err(bad()) };
        let Node::Storage(storage) = &self.nodes[storage] else { return Err(bad()) };
        let (shape, stride) = (self.extents(shape)?, self.extents(stride)?);
        if shape.len() != stride.len() {
            return Err(bad());
        }
        Ok(View { storage: storage.clone(), offset: self.extent(offset)?, shape, stride })
    }

    fn extents(&self, id: Id) -> Outcome<Vec<usize>> {
        match &self.nodes[id] {
            Node::Tuple(items) if items.len() > MAX_DIMENSIONS => {
                Err(format!("a tensor in the pickle has {} dimensions, expected at most {MAX_DIMENSIONS}", items.len()))
            }
            Node::Tuple(items) => items.iter().map(|&id| self.extent(id)).collect(),
            other => Err(format!("a tensor's shape in the pickle is {}", other.kind())),
        }
    }

    fn extent(&self, id: Id) -> Outcome<usize> {
        match &self.nodes[id] {
            Node::Int(value) => {
                usize::try_from(*value).map_err(|_| format!("a tensor in the pickle has the extent {value}"))
            }
            other => Err(format!("a tensor's extent in the pickle is {}", other.kind())),
        }
    }

    /// Attributes set on an object: torch leaves `_metadata` on its dictionary, which holds no weight.
    fn build(&mut self) -> Outcome<()> {
        self.pop()?;
        let top = self.top()?;
        match &self.nodes[top] {
            Node::Dict(_) => Ok(()),
            other => Err(format!("the pickle sets attributes of {}", other.kind())),
        }
    }
}
