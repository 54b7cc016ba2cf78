//! What data is accepted, what it becomes, and how its faults are named.
use super::*;
use std::path::PathBuf;

fn schema() -> Schema {
    let ids = |name: &str, vocabulary| Input {
        name: name.into(),
        ty: Type { dtype: DType::Int64, shape: Some(["batch", "tokens"].map(graft_ir::Dim::parse).to_vec()) },
        vocabulary,
    };
    let label = Label {
        name: "label".into(),
        ty: Type { dtype: DType::Int64, shape: Some(vec![graft_ir::Dim::parse("batch")]) },
        classes: Some(2),
    };
    Schema { inputs: vec![ids("input_ids", Some(20)), ids("attention_mask", None)], label: Some(label) }
}

/// A `tokenizer.json` of whole words: `[PAD] [UNK] [CLS] [SEP]`, then `w4` … of that number.
fn tokenizer(dir: &Path, words: usize) -> PathBuf {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(String::from);
    let words = special.into_iter().chain((4..words).map(|i| format!("w{i}")));
    let vocab: serde_json::Map<_, _> = words.enumerate().map(|(i, w)| (w, i.into())).collect();
    let token = |t: &str| serde_json::json!({"SpecialToken": {"id": t, "type_id": 0}});
    let text = |s: &str| serde_json::json!({"Sequence": {"id": s, "type_id": 0}});
    let special = |t: &str, id: u32| serde_json::json!({"id": t, "ids": [id], "tokens": [t]});
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token("[CLS]"), text("A"), token("[SEP]")],
            "pair": [token("[CLS]"), text("A"), token("[SEP]"), text("B"), token("[SEP]")],
            "special_tokens": {"[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3)},
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    let path = dir.join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    path
}

fn read(content: &str, schema: &Schema, text: Option<usize>) -> Result<(Dataset, Vec<String>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.jsonl");
    std::fs::write(&path, content).unwrap();
    let tokenizer = tokenizer(dir.path(), 20);
    let text = text.map(|max_length| Text { tokenizer: &tokenizer, field: "text", max_length });
    let mut notes = Vec::new();
    let data = Dataset::read(&path, schema, text.as_ref(), &mut |n| notes.push(n.to_string()))?;
    Ok((data, notes))
}

fn ints(batch: &[(String, Tensor)], name: &str) -> (Vec<usize>, Vec<i64>) {
    let tensor = &batch.iter().find(|(n, _)| n == name).unwrap().1;
    (tensor.dims().to_vec(), tensor.to_i64().unwrap())
}

#[test]
fn text_is_cut_padded_and_masked() {
    let rows = "{\"text\":\"w4 w5 nothing\",\"label\":1}\n\n{\"text\":\"w6\",\"label\":0}\n{\"text\":\"w7 w8 w9 w10\",\"label\":1}\n";
    let (data, _) = read(rows, &schema(), Some(5)).unwrap();
    assert_eq!(data.lengths(), [5, 3, 5]);
    let batch = data.batch(&[1, 0]);
    assert_eq!(ints(&batch, "input_ids"), (vec![2, 5], vec![2, 6, 3, 0, 0, 2, 4, 5, 1, 3]));
    assert_eq!(ints(&batch, "attention_mask"), (vec![2, 5], vec![1, 1, 1, 0, 0, 1, 1, 1, 1, 1]));
    assert_eq!(ints(&batch, "label"), (vec![2], vec![0, 1]));
    assert_eq!(batch.len(), 3, "token_type_ids is no input of this model");
    assert_eq!(ints(&data.batch(&[2]), "input_ids").1, [2, 7, 8, 9, 3]);
    assert_eq!(ints(&data.batch(&[1]), "input_ids").0, [1, 3], "padded to the longest of the batch only");
}

#[test]
fn faults_of_text_name_the_line() {
    let good = "{\"text\":\"w4\",\"label\":1}\n";
    for (line, code, wanted) in [
        ("{\"text\":\"w4\",\"label\":2}", Code::LABEL, "label 2 is out of range"),
        ("{\"text\":\"w4\",\"label\":-1}", Code::LABEL, "label -1 is out of range"),
        ("{\"text\":\"w4\",\"label\":\"yes\"}", Code::LABEL, "expected a number"),
        ("{\"text\":\"w4\",\"label\":0.5}", Code::LABEL, "is no int64"),
        ("{\"text\":\"w4\"}", Code::LABEL, "no field `label`"),
        ("{\"label\":1}", Code::DATA, "no field `text`"),
        ("{\"text\":3,\"label\":1}", Code::DATA, "expected a string"),
        ("{\"text\":\"w4\",", Code::DATA, "not valid JSON"),
        ("[1]", Code::DATA, "not a JSON object"),
    ] {
        let error = read(&format!("{good}\n{line}\n"), &schema(), Some(8)).unwrap_err();
        assert_eq!(error.code, code, "{line}: {error}");
        assert!(error.to_string().contains("line 3") && error.message.contains(wanted), "{line}: {error}");
    }
    let mut small = schema();
    small.inputs[0].vocabulary = Some(10);
    let error = read("{\"text\":\"w4 w15\",\"label\":1}", &small, Some(8)).unwrap_err();
    assert_eq!(error.code, Code::TOKENIZER);
    assert!(error.message.contains("`w15` has the id 15, but the model knows 10"), "{error}");
    assert_eq!(read(good, &schema(), Some(2)).unwrap_err().code, Code::TOKENIZER);
    assert_eq!(read("\n", &schema(), Some(8)).unwrap_err().message, "the data has no rows");
}

#[test]
fn models_that_take_no_text_say_so() {
    let mut other = schema();
    other.inputs[1].name = "pixels".into();
    let error = read("{\"text\":\"w4\",\"label\":1}", &other, Some(8)).unwrap_err();
    assert_eq!(error.code, Code::TOKENIZER);
    assert!(error.message.contains("`pixels` cannot be filled from text"), "{error}");
}

#[test]
fn arrays_are_read_and_checked() {
    let row =
        |ids: &str| format!("{{\"input_ids\":{ids},\"attention_mask\":[1,1,0],\"label\":0,\"id\":7}}\n");
    let (data, notes) = read(&(row("[1,2,3]") + &row("[4,5.0,6]")), &schema(), None).unwrap();
    assert_eq!(ints(&data.batch(&[1, 0]), "input_ids"), (vec![2, 3], vec![4, 5, 6, 1, 2, 3]));
    assert_eq!(data.lengths(), [2, 2], "tokens are those that the mask counts");
    assert_eq!(notes, ["the data's `id` is neither an input of the model nor the label: ignored"]);
    for (ids, wanted) in [
        ("[1,2]", "the shape is [2], that of the rows before is [3]"),
        ("[[1],[2],[3]]", "the model wants int64[batch, tokens]"),
        ("[[1],[2,3]]", "ragged"),
        ("[1,2,20]", "index 20 is outside the model's table of 20"),
        ("[1,2,-1]", "index -1 is outside"),
        ("[1,2,2.5]", "`2.5` is no int64"),
        ("\"w4\"", "expected a number or an array"),
    ] {
        let error = read(&(row("[1,2,3]") + &row(ids)), &schema(), None).unwrap_err();
        assert_eq!(error.code, Code::DATA, "{ids}: {error}");
        assert!(error.to_string().contains("line 2") && error.message.contains(wanted), "{ids}: {error}");
    }
}

#[test]
fn tensors_are_read_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let good: BTreeMap<String, Tensor> = BTreeMap::from([
        ("input_ids".into(), Tensor::i64(&[2, 3], &[1, 2, 3, 4, 5, 6])),
        ("attention_mask".into(), Tensor::i64(&[2, 3], &[1, 1, 1, 1, 0, 0])),
        ("label".into(), Tensor::from_f64(DType::Int32, &[2], [1.0, -100.0]).unwrap()),
        ("extra".into(), Tensor::f32(&[1], &[0.0])),
    ]);
    let read = |tensors: &BTreeMap<String, Tensor>| {
        let path = dir.path().join("data.npz");
        graft_adapter::tensors::write(&path, tensors).unwrap();
        let mut notes = Vec::new();
        Dataset::read(&path, &schema(), None, &mut |n| notes.push(n.to_string())).map(|d| (d, notes))
    };
    let (data, notes) = read(&good).unwrap();
    assert_eq!(data.lengths(), [3, 1]);
    assert_eq!(ints(&data.batch(&[1]), "label"), (vec![1], vec![-100]));
    assert_eq!(data.batch(&[0])[2].1.dtype(), DType::Int64, "the label has the loss's type");
    assert!(notes[0].contains("`extra`"));
    for (name, tensor, code, wanted) in [
        ("input_ids", Some(Tensor::f32(&[2, 3], &[0.0; 6])), Code::DATA, "the model wants int64"),
        ("input_ids", Some(Tensor::i64(&[3, 2], &[0; 6])), Code::DATA, "has 2 rows, `input_ids` has 3"),
        ("input_ids", Some(Tensor::i64(&[2], &[0; 2])), Code::DATA, "the model wants int64[batch, tokens]"),
        ("input_ids", Some(Tensor::i64(&[2, 1], &[0, 20])), Code::DATA, "index 20 is outside"),
        ("input_ids", Some(Tensor::i64(&[], &[0])), Code::DATA, "a scalar has no rows"),
        ("input_ids", None, Code::DATA, "no tensor for the model's input `input_ids`"),
        ("label", None, Code::LABEL, "no tensor for the label `label`"),
        ("label", Some(Tensor::i64(&[2], &[0, 2])), Code::LABEL, "label 2 is out of range"),
        ("label", Some(Tensor::f32(&[2], &[0.5, 1.0])), Code::LABEL, "the loss wants int64"),
    ] {
        let mut bad = good.clone();
        bad.remove(name);
        bad.extend(tensor.map(|t| (name.to_string(), t)));
        let error = read(&bad).unwrap_err();
        assert_eq!(error.code, code, "{name}: {error}");
        assert!(error.message.contains(wanted), "{name}: {error}");
    }
}
