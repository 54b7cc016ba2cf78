//! ONNX Runtime's `.onnx_adapter`: the weights by the names of a model's inputs. A FlatBuffer,
//! ```text
//! table Parameter { name: string; dims: [int64]; data_type: int32; raw_data: [uint8] (force_align: 8); }
//! table Adapter { format_version: int; adapter_version: int; model_version: int; parameters: [Parameter]; }
//! root_type Adapter; file_identifier "TORT";
//! ```
//! read and written here without generated code: the crate `flatbuffers` reads tables by unchecked calls.
use super::{Content, Form, Format};
use bytes::Bytes;
use graft_ir::{Code, DType, Error, Result, Tensor};
use std::collections::BTreeMap;

pub(super) const FORMAT: Format = Format {
    name: "onnx_adapter",
    about: "ONNX Runtime's file for `LoraAdapter`: the inputs of a model that `graft inject --inputs` made",
    extension: "onnx_adapter",
    form: Form::Inputs,
    is_it: |source| source.bytes.get(4..8) == Some(IDENTIFIER),
    read: |source, _| read(&source.bytes).map(Content::Inputs),
    write: |content, _| match content {
        Content::Inputs(tensors) => Ok(vec![("", write(tensors)?)]),
        _ => FORMAT.refuse(),
    },
};

const IDENTIFIER: &[u8] = b"TORT";
/// The version of the format, which ONNX Runtime checks.
const VERSION: i32 = 1;
/// More sizes than a tensor has anywhere.
const MOST_DIMS: usize = 64;

/// Every offset and length is checked against the file, and names may not fill more than it: tables may share strings.
fn read(bytes: &Bytes) -> Result<BTreeMap<String, Tensor>> {
    let file = Buffer(bytes);
    let adapter = file.table(file.at_offset(0)?)?;
    let version = adapter.field(0).map_or(Ok(0), |at| file.int(at))?;
    if version != VERSION {
        return Err(Error::new(
            Code::ADAPTER_FEATURE,
            format!("version {version} of the format is not supported"),
        ));
    }
    let Some(parameters) = adapter.field(3) else { return Ok(BTreeMap::new()) };
    let (start, n) = file.vector(file.at_offset(parameters)?, 4)?;
    let (mut tensors, mut named) = (BTreeMap::new(), 0);
    for i in 0..n {
        let (name, tensor) = parameter(&file, start + 4 * i)?;
        named += name.len();
        if named > bytes.len() {
            return Err(damaged("the names are longer than the file"));
        }
        if tensors.contains_key(name) {
            return Err(damaged(&format!("`{name}` stands there twice")));
        }
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}

/// The tensor whose table the offset at `at` leads to, sharing the file's bytes.
fn parameter<'b>(file: &Buffer<'b>, at: usize) -> Result<(&'b str, Tensor)> {
    let table = file.table(file.at_offset(at)?)?;
    let part = |i: u16, size: usize, what: &str| {
        let field = table.field(i).ok_or_else(|| damaged(&format!("a tensor has no {what}")))?;
        file.vector(file.at_offset(field)?, size)
    };
    let (start, length) = part(0, 1, "name")?;
    let name =
        std::str::from_utf8(&file.0[start..start + length]).map_err(|_| damaged("a name is not UTF-8"))?;
    let place = |e: Error| Error { code: Code::ADAPTER, ..e }.at(format!("tensor `{name}`"));
    let (sizes, n) = part(1, 8, "sizes").map_err(place)?;
    if n > MOST_DIMS {
        return Err(place(damaged(&format!("{n} sizes are too many"))));
    }
    let size = |i: usize| {
        let word = file.0[sizes + 8 * i..][..8].try_into().map_err(|_| damaged("a size is cut off"))?;
        usize::try_from(i64::from_le_bytes(word)).map_err(|_| damaged("a size is negative"))
    };
    let dims = (0..n).map(size).collect::<Result<Vec<_>>>().map_err(place)?;
    let number = table.field(2).map_or(Ok(0), |at| file.int(at))?;
    let unknown = || place(damaged(&format!("there is no element type {number}")));
    let dtype = DType::from_onnx(number).filter(|&d| d != DType::String).ok_or_else(unknown)?;
    let (data, length) = part(3, 1, "data").map_err(place)?;
    let tensor = Tensor::new(dtype, dims, file.0.slice(data..data + length)).map_err(place)?;
    Ok((name, tensor))
}

fn damaged(what: &str) -> Error {
    Error::new(Code::ADAPTER, format!("the file is damaged: {what}"))
}

/// The bytes of a FlatBuffer.
struct Buffer<'b>(&'b Bytes);

/// A table and the positions of its fields.
struct Table<'b> {
    at: usize,
    fields: &'b [u8],
}

impl<'b> Buffer<'b> {
    fn word<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let word = at.checked_add(N).and_then(|end| self.0.get(at..end));
        word.and_then(|w| w.try_into().ok()).ok_or_else(|| damaged("an offset leads out of it"))
    }
    fn int(&self, at: usize) -> Result<i32> {
        self.word(at).map(i32::from_le_bytes)
    }
    /// Where the offset at `at` leads to.
    fn at_offset(&self, at: usize) -> Result<usize> {
        let offset = u32::from_le_bytes(self.word(at)?) as usize;
        at.checked_add(offset).ok_or_else(|| damaged("an offset leads out of it"))
    }
    /// Where the elements of a vector begin, each of `size` bytes, and how many there are.
    fn vector(&self, at: usize, size: usize) -> Result<(usize, usize)> {
        let n = u32::from_le_bytes(self.word(at)?) as usize;
        let start = at + 4;
        let end = n.checked_mul(size).and_then(|length| start.checked_add(length));
        match end.filter(|&end| end <= self.0.len()) {
            Some(_) => Ok((start, n)),
            None => Err(damaged("a length is more than there is")),
        }
    }
    fn table(&self, at: usize) -> Result<Table<'b>> {
        let back = i64::from(self.int(at)?);
        let out = || damaged("a table leads out of it");
        let fields = i64::try_from(at).ok().and_then(|at| usize::try_from(at - back).ok()).ok_or_else(out)?;
        let length = usize::from(u16::from_le_bytes(self.word(fields)?));
        let fields = fields.checked_add(length).and_then(|end| self.0.get(fields..end)).ok_or_else(out)?;
        Ok(Table { at, fields })
    }
}

impl Table<'_> {
    /// Where a field is; `None` where it has its default.
    fn field(&self, i: u16) -> Option<usize> {
        let slot = 4 + 2 * usize::from(i);
        let offset = u16::from_le_bytes(self.fields.get(slot..slot + 2)?.try_into().ok()?);
        (offset != 0).then(|| self.at + usize::from(offset))
    }
}

/// The sizes of the tables' fields: of the field table itself, of the table, and where the fields begin.
const ADAPTER: [u16; 6] = [12, 20, 4, 8, 12, 16];
const PARAMETER: [u16; 6] = [12, 20, 4, 8, 12, 16];

/// Everything stands in the order in which it is read, so that all offsets lead forward.
fn write(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let mut out = Writer(Vec::new());
    out.word(8 + 12);
    out.0.extend(IDENTIFIER);
    let root = out.table(&ADAPTER, None);
    for version in [VERSION, 0, 0] {
        out.word(version as u32);
    }
    out.word(4);
    debug_assert_eq!((root, out.0.len()), (20, 40));
    out.length(tensors.len())?;
    let list = out.0.len();
    out.0.resize(list + 4 * tensors.len(), 0);
    let mut fields = None;
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        if tensor.dtype() == DType::String || tensor.dtype().bits() == 0 {
            return Err(Error::new(
                Code::ADAPTER_FEATURE,
                format!("`{name}`: {} cannot be stored", tensor.dtype()),
            ));
        }
        let at = out.table(&PARAMETER, fields);
        fields = fields.or(Some(at - 12));
        out.point(list + 4 * i, at)?;
        let slots = out.0.len();
        out.0.resize(slots + 16, 0);
        out.0[slots + 8..slots + 12].copy_from_slice(&(tensor.dtype() as i32).to_le_bytes());
        out.vector(slots, name.len(), 4, name.as_bytes())?;
        out.0.push(0);
        let dims: Vec<u8> = tensor.dims().iter().flat_map(|&n| (n as i64).to_le_bytes()).collect();
        out.vector(slots + 4, tensor.dims().len(), 8, &dims)?;
        out.vector(slots + 12, tensor.data().len(), 8, tensor.data())?;
    }
    Ok(out.0)
}

/// A FlatBuffer that grows at its end.
struct Writer(Vec<u8>);

impl Writer {
    fn word(&mut self, word: u32) {
        self.0.extend(word.to_le_bytes());
    }
    fn length(&mut self, n: usize) -> Result<()> {
        let too_long = || Error::new(Code::ADAPTER_FEATURE, "the format cannot hold more than 2 GiB");
        self.word(u32::try_from(n).ok().filter(|&n| n < 1 << 31).ok_or_else(too_long)?);
        Ok(())
    }
    fn pad(&mut self, align: usize) {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
    }
    /// Begins a table, with its fields' positions in front of it unless those at `fields` are the same.
    fn table(&mut self, sizes: &[u16; 6], fields: Option<usize>) -> usize {
        self.pad(4);
        let fields = fields.unwrap_or_else(|| {
            let at = self.0.len();
            self.0.extend(sizes.iter().flat_map(|n| n.to_le_bytes()));
            at
        });
        let at = self.0.len();
        self.word((at - fields) as u32);
        at
    }
    /// Lets the offset at `slot` lead to `at`.
    fn point(&mut self, slot: usize, at: usize) -> Result<()> {
        let too_long = || Error::new(Code::ADAPTER_FEATURE, "the format cannot hold more than 2 GiB");
        let offset = u32::try_from(at - slot).ok().filter(|&n| n < 1 << 31).ok_or_else(too_long)?;
        self.0[slot..slot + 4].copy_from_slice(&offset.to_le_bytes());
        Ok(())
    }
    /// Appends a vector of `n` elements, the first of them aligned, to which the offset at `slot` leads.
    fn vector(&mut self, slot: usize, n: usize, align: usize, bytes: &[u8]) -> Result<()> {
        let start = (self.0.len() + 4).next_multiple_of(align);
        self.0.resize(start - 4, 0);
        self.point(slot, start - 4)?;
        self.length(n)?;
        self.0.extend(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BTreeMap<String, Tensor> {
        let half = Tensor::from_f64(DType::Float16, &[3], [1.0, -0.5, 2.0]).unwrap();
        BTreeMap::from([
            ("a.lora_A.weight".into(), Tensor::f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
            ("a.lora_B.weight".into(), Tensor::f32(&[0, 4], &[])),
            ("half".into(), half),
            ("scale".into(), Tensor::f32(&[], &[0.25])),
        ])
    }

    #[test]
    fn what_is_written_reads_back_and_is_aligned() {
        for tensors in [sample(), BTreeMap::new()] {
            let bytes = Bytes::from(write(&tensors).unwrap());
            let read = read(&bytes).unwrap();
            assert_eq!(read, tensors);
            for (name, tensor) in &read {
                let at = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
                assert!(at.is_multiple_of(8) || tensor.is_empty(), "`{name}` at {at}");
            }
        }
    }

    #[test]
    fn damaged_files_are_errors_or_other_tensors_but_no_panics() {
        let whole = write(&sample()).unwrap();
        for cut in 0..whole.len() {
            // What is cut off may be padding at the end, or the data of nothing.
            if let Ok(tensors) = read(&Bytes::copy_from_slice(&whole[..cut])) {
                assert!(tensors.len() == 4, "cut at {cut}");
            }
        }
        for at in 0..whole.len() {
            for value in [0, 1, 4, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Err(e) = read(&bytes.into()) {
                    assert!(e.code == Code::ADAPTER || e.code == Code::ADAPTER_FEATURE, "{at} {value}: {e}");
                }
            }
        }
    }

    #[test]
    fn many_tables_of_one_long_name_take_no_more_memory_than_the_file() {
        let one = BTreeMap::from([("n".repeat(1 << 16), Tensor::f32(&[1], &[1.0]))]);
        let mut bytes = write(&one).unwrap();
        // A second vector of parameters at the end, all of them the same table.
        let table = 40 + 4 + u32::from_le_bytes(bytes[44..48].try_into().unwrap()) as usize;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let list = bytes.len();
        bytes[36..40].copy_from_slice(&((list - 36) as u32).to_le_bytes());
        bytes.extend(1000u32.to_le_bytes());
        for i in 0..1000 {
            let offset = (table as u32).wrapping_sub((list + 4 + 4 * i) as u32);
            bytes.extend(offset.to_le_bytes());
        }
        assert_eq!(read(&bytes.into()).unwrap_err().code, Code::ADAPTER);
    }
}
