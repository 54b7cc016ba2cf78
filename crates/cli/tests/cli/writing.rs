//! Commands that write: whole files or none, and the old file where the new one cannot be finished.
use crate::{
    fixtures::{parity, sandbox},
    sandbox::{Outcome, Refusal, refuses},
};

/// Files end at 4 KiB, as on a disk that is full; the signal that says so is ignored, so that writing fails.
const FULL_DISK: &str = "trap '' XFSZ; ulimit -f 8; ulimit -v 8388608";

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let sandbox = sandbox();
    sandbox.write("old.onnx", "old");
    let model = parity("base.onnx");
    let before = sandbox.content();
    for line in [
        format!("inject {model} --targets query -o out.onnx"),
        format!("opt {model} -o out.onnx"),
        format!("opt {model} -o out.onnxtxt"),
        format!("merge {model} --adapter {} --force -o old.onnx", parity("lora/init")),
    ] {
        let outcome = Outcome::of(sandbox.command_after(FULL_DISK, &line), &line);
        assert_eq!(outcome.code, 1, "{line}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains("error[G0205]: ") && outcome.stderr.contains("File too large"),
            "{}",
            outcome.stderr
        );
        assert_eq!(outcome.crash(), None, "{line}");
        assert_eq!(sandbox.content(), before, "{line}");
    }
}

/// The superuser writes where others may not, unless that right is given up.
const AS_OTHERS: &str = "ulimit -v 8388608; \
    [ \"$(id -u)\" = 0 ] && exec setpriv --bounding-set=-dac_override,-dac_read_search \"$0\" \"$@\"";

#[test]
fn a_folder_that_may_not_be_written_is_refused_and_stays_as_it_is() {
    let sandbox = sandbox();
    let locked = sandbox.path("locked");
    std::fs::create_dir(&locked).expect("a folder");
    let only_read = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    std::fs::set_permissions(&locked, only_read).expect("its permissions can be set");
    let before = sandbox.content();
    for line in [
        "inject tiny.onnx --targets up -o locked/out.onnx",
        "merge tiny.onnx --adapter adapter -o locked/out.onnx",
        "opt tiny.onnx -o locked/out.onnxtxt",
        "run tiny.onnx --inputs in.npz -o locked/out.npz",
        "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --steps 1 --out locked/run",
        "render tiny.onnx -o locked/out.svg",
    ] {
        let outcome = Outcome::of(sandbox.command_after(AS_OTHERS, line), line);
        assert_eq!((outcome.code, outcome.crash()), (1, None), "{line}: {}", outcome.stderr);
        let says = ["error[G0205]: ", "Permission denied"].map(|words| outcome.stderr.contains(words));
        assert_eq!(says, [true; 2], "{line}: {}", outcome.stderr);
        assert_eq!(sandbox.content(), before, "{line}");
    }
}

#[test]
fn a_full_disk_while_training_ends_the_run_with_whole_files() {
    let sandbox = sandbox();
    let (model, data) = (parity("base.onnx"), parity("train.npz"));
    let line = format!(
        "train {model} --data {data} --label labels --loss cross-entropy --logits logits --steps 3 --out run"
    );
    let outcome = Outcome::of(sandbox.command_after(FULL_DISK, &line), &line);
    assert_eq!((outcome.code, outcome.crash()), (1, None), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error[G0205]: "), "{}", outcome.stderr);
    let leftovers = sandbox.content().into_keys().filter(|path| path.extension().is_some_and(|e| e == "tmp"));
    assert_eq!(leftovers.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    // With room again, the run can be begun anew.
    sandbox.succeeds(&format!("{line} --force"));
}

#[test]
fn force_replaces() {
    let sandbox = sandbox();
    for line in [
        "inject tiny.onnx --targets up -o taken.onnx",
        "merge tiny.onnx --adapter adapter -o taken.onnx",
        "opt tiny.onnx -o taken.onnx",
        "run tiny.onnx --inputs in.npz -o taken.npz",
    ] {
        for name in ["taken.onnx", "taken.npz"] {
            sandbox.write(name, "mine");
        }
        assert_eq!(sandbox.graft(line).code, 2, "{line}");
        sandbox.succeeds(&format!("{line} --force"));
        let taken = if line.starts_with("run") { "taken.npz" } else { "taken.onnx" };
        assert_ne!(sandbox.read(taken), b"mine", "{line}");
    }
    let line = "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --steps 1 --out run";
    sandbox.succeeds(line);
    assert_eq!(sandbox.graft(line).code, 2);
    sandbox.succeeds(&format!("{line} --force"));
}

#[test]
fn pictures() {
    let sandbox = sandbox();
    sandbox.succeeds("inject tiny.onnx --targets up --rank 2 -o adapted.onnx");
    for (line, words) in [
        ("render adapted.onnx -o a.svg --depth 2", &["<svg ", "enc.up", "lora rank 2", "#fdebd0"][..]),
        ("render adapted.onnx -o all.svg --depth 9", &["<svg ", "/enc/up/MatMul", "Tanh", "float[2, 4]"]),
        ("render adapted.onnx -o near.dot --around /enc/up/MatMul --hops 1", &["digraph", "ReduceMean"]),
    ] {
        sandbox.succeeds(line);
        let file = line.split(' ').nth(3).unwrap();
        let text = String::from_utf8(sandbox.read(file)).unwrap();
        words.iter().for_each(|word| assert!(text.contains(word), "{line}: no {word} in {text}"));
    }
    assert!(!String::from_utf8(sandbox.read("near.dot")).unwrap().contains("Tanh"));
}

#[test]
fn the_way_from_a_model_to_a_merged_one() {
    let sandbox = sandbox();
    sandbox.succeeds("train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --rank 2 --lr 0.05 --steps 20 --out run");
    sandbox.succeeds("inject tiny.onnx --adapter run -o adapted.onnx");
    sandbox.succeeds("merge tiny.onnx --adapter run --verify -o merged.onnx");
    sandbox.succeeds("verify adapted.onnx merged.onnx");
    assert_eq!(sandbox.graft("verify tiny.onnx merged.onnx").code, 6);
    sandbox.succeeds("run merged.onnx --inputs in.npz -o out.npz --profile");
    sandbox.succeeds("run merged.onnx --inputs in.npz -o out.safetensors");
    let outputs = |name: &str| graft_adapter::tensors::read(&sandbox.path(name)).unwrap();
    assert_eq!(outputs("out.npz"), outputs("out.safetensors"));
    assert_eq!(outputs("out.npz")["logits"].dims(), [2, 3]);
}

/// A comparison of short runs.
const COMPARE: &str = "compare tiny.onnx --data data.jsonl --eval data.jsonl --loss cross-entropy --targets up \
    --budget 16 --seeds 2 --seed 5 --steps 4 --eval-every 2 --lr 0.05 --json";

#[test]
fn a_comparison_is_fair_and_says_so() {
    let sandbox = sandbox();
    let outcome = sandbox.succeeds(&format!(
        "{COMPARE} --methods lora,bone,bat,hydra+experts=2 --method-lr bone=0.01 --out cmp"
    ));
    let value = outcome.json();
    assert_eq!(value["schema"], "graft.compare/1");
    assert_eq!((&value["budget"], &value["seeds"]), (&16.into(), &serde_json::json!([5, 6])));
    let methods = value["methods"].as_array().expect("methods");
    // The linear is 4 × 4: LoRA has 8·rank parameters, Bone and Bat 4·rank, Hydra with two heads 12·rank + 8.
    let sizes: Vec<_> =
        methods.iter().map(|m| (m["label"].as_str(), m["rank"].as_u64(), m["parameters"].as_u64())).collect();
    let size = |label, rank, parameters| (Some(label), Some(rank), Some(parameters));
    assert_eq!(
        sizes,
        [size("lora", 2, 16), size("bone", 4, 16), size("bat", 4, 16), size("hydra+experts=2", 1, 20)]
    );
    assert_eq!((&methods[0]["lr"], &methods[1]["lr"]), (&0.05.into(), &0.01.into()));
    assert_eq!((&methods[0]["alpha"], &methods[3]["set"]["experts"]), (&4.0.into(), &"2".into()));
    assert!(
        outcome.stderr.contains("`hydra+experts=2` has 20 trainable parameters, not 16"),
        "{}",
        outcome.stderr
    );
    for method in methods {
        let curve: Vec<f64> =
            method["curve"]["mean"].as_array().unwrap().iter().filter_map(|v| v.as_f64()).collect();
        assert_eq!((curve.len(), method["failed"].as_u64()), (2, Some(0)), "{method}");
        for key in ["accuracy", "eval_loss", "loss", "tokens_per_s", "peak_mb", "seconds"] {
            assert!(method[key]["mean"].is_f64() && method[key]["deviation"].is_f64(), "{key}: {method}");
        }
        let runs = method["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        let losses: Vec<f64> = runs.iter().filter_map(|run| run["eval_loss"].as_f64()).collect();
        assert!(
            (method["eval_loss"]["mean"].as_f64().unwrap() - (losses[0] + losses[1]) / 2.0).abs() < 1e-12
        );
        // A run can be had by hand, to the same bytes.
        assert!(
            sandbox
                .path(&format!("cmp/{}/adapter_config.json", runs[0]["folder"].as_str().unwrap()))
                .exists()
        );
    }
    assert!(methods[0]["steps_to_lora"].is_u64(), "LoRA reaches its own best");
    let same = "train tiny.onnx --data data.jsonl --eval data.jsonl --loss cross-entropy --targets up --rank 2 --alpha 4 \
        --seed 5 --steps 4 --eval-every 2 --lr 0.05 --out alone";
    sandbox.succeeds(same);
    let adapter = |folder: &str| sandbox.read(&format!("{folder}/adapter_model.safetensors"));
    assert_eq!(adapter("alone"), adapter("cmp/runs/lora/seed-5"));

    assert_eq!(String::from_utf8(sandbox.read("cmp/comparison.json")).unwrap(), outcome.stdout);
    let page = String::from_utf8(sandbox.read("cmp/comparison.html")).unwrap();
    assert_eq!((page.matches("<svg").count(), page.matches("<tr>").count()), (3, 7), "{page}");
    assert!(page.contains("<h2>routing of hydra+experts=2</h2>") && !page.contains("<h2>ranks of"), "{page}");
    for link in ["href=", "src=", "url(", "@import", "<script"] {
        assert!(!page.contains(link), "the page needs another file: {link}");
    }
    assert_eq!(
        sandbox.graft(&format!("{COMPARE} --methods lora --out cmp")).code,
        2,
        "nothing is overwritten"
    );
}

#[test]
fn ranks_that_come_and_go_are_compared_at_their_widest_and_drawn() {
    let sandbox = sandbox();
    let methods = "tri+growth=linear+target_rank=2+max_rank=2,adalora+target_rank=1,salora+target_rank=1";
    let line = format!("{} --methods {methods} --out cmp", COMPARE.replace("--budget 16", "--budget 24"));
    let outcome = sandbox.succeeds(&line);
    let value = outcome.json();
    let methods = value["methods"].as_array().expect("methods");
    // Of 4 × 4: two ranks of Tri, of which one counts at first, and three of the others, of which one is left.
    let sizes: Vec<_> = methods.iter().map(|m| (m["rank"].as_u64(), m["parameters"].as_u64())).collect();
    assert_eq!(sizes, [(Some(1), Some(24)), (Some(3), Some(27)), (Some(3), Some(27))]);
    let widest = "`adalora+target_rank=1` has 27 trainable parameters at its widest, not 24";
    assert!(outcome.stderr.contains(widest), "{}", outcome.stderr);
    let page = String::from_utf8(sandbox.read("cmp/comparison.html")).unwrap();
    assert_eq!(page.matches("<h2>ranks of ").count(), 3, "{page}");
    for (label, first, last) in [("tri", "1", "2"), ("adalora", "3", "1"), ("salora", "3", "1")] {
        let map = page.split("<h2>ranks of ").find(|map| map.starts_with(label)).expect("a map");
        let row = map.lines().find(|line| line.contains("<td>enc.up</td>")).expect("a row");
        let cells: Vec<&str> = row.split("\">").skip(1).filter_map(|cell| cell.split('<').next()).collect();
        assert_eq!((cells.first(), cells.last()), (Some(&first), Some(&last)), "{label}: {row}");
    }
}

#[test]
fn a_run_that_fails_takes_no_other_with_it() {
    let sandbox = sandbox();
    // A rate that is infinite in single precision.
    let outcome = sandbox.graft(&format!("{COMPARE} --methods lora,bone --method-lr bone=1e39 --out cmp"));
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error[G0507]: 2 of 4 runs failed"), "{}", outcome.stderr);
    let value = outcome.json();
    let [lora, bone] = [0, 1].map(|i| &value["methods"][i]);
    assert!(lora["failed"] == 0 && lora["eval_loss"]["mean"].is_f64(), "{lora}");
    assert!(bone["failed"] == 2 && bone["eval_loss"].is_null(), "{bone}");
    assert!(bone["runs"][0]["error"].as_str().is_some_and(|e| e.contains("error[G0505]")), "{bone}");
    assert!(String::from_utf8(sandbox.read("cmp/comparison.html")).unwrap().contains("G0505"));
}

#[test]
fn a_training_run_reports_itself_as_json() {
    let sandbox = sandbox();
    let line = "train tiny.onnx --data data.jsonl --eval data.jsonl --loss cross-entropy --targets up --steps 3 --json --out run";
    let value = sandbox.succeeds(line).json();
    assert_eq!((&value["schema"], &value["steps"]), (&"graft.train/1".into(), &3.into()));
    for key in ["loss", "seconds", "rss_mb"] {
        assert!(value[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {value}");
    }
    assert_eq!(value["evaluation"]["step"], 3);
    assert!(value["best"]["eval_loss"].is_f64());
}

#[test]
fn mean_routing_is_exact_where_the_routing_is_its_mean() {
    let sandbox = sandbox();
    let hydra = "--method hydra --set experts=2 --rank 2 --targets up";
    sandbox.succeeds(&format!(
        "train tiny.onnx --data data.jsonl --loss cross-entropy {hydra} --lr 0.05 --steps 30 --out run"
    ));
    sandbox.write("one.jsonl", "{\"input_ids\": [1, 5, 2], \"label\": 1}\n");
    let merge = "merge tiny.onnx --adapter run --routing mean";
    // The model pools before the linear: a row is routed once.
    for (data, is_exact) in [("one", true), ("data", false)] {
        let said = sandbox.succeeds(&format!("{merge} --calibrate {data}.jsonl -o {data}.onnx")).stdout;
        let row = said.lines().find(|line| line.starts_with("logits")).expect("a row for each output");
        let error: f64 = row.split_whitespace().nth(2).and_then(|cell| cell.parse().ok()).expect("a number");
        assert_eq!(error < 1e-6, is_exact, "{said}");
    }
    let value = sandbox.succeeds(&format!("{merge} --calibrate data.jsonl --json -o again.onnx")).json();
    assert_eq!((&value["schema"], &value["batches"]), (&"graft.merge/1".into(), &1.into()));
    let shares: Vec<f64> =
        value["routing"]["enc.up"].as_array().expect("shares").iter().filter_map(|p| p.as_f64()).collect();
    assert!(shares.len() == 2 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{value}");
    assert!(value["outputs"][0]["max_rel"].as_f64().is_some_and(|d| d > 1e-6), "{value}");
    sandbox.succeeds("inject tiny.onnx --adapter run -o adapted.onnx");
    assert_eq!(
        sandbox.graft("verify adapted.onnx data.onnx --tol 1e-6").code,
        6,
        "the weights hold one routing"
    );
    assert_eq!(
        sandbox.graft("verify tiny.onnx data.onnx --tol 1e-3").code,
        6,
        "the adapter is in the weights"
    );
    let refusals: &[Refusal] = &[
        ("merge tiny.onnx --adapter run -o out.onnx", 5, "G0307", &["`hydra`", "--routing mean --calibrate"]),
        ("merge tiny.onnx --adapter run --routing mean -o out.onnx", 2, "G0701", &["--calibrate"]),
        ("merge tiny.onnx --adapter adapter --json -o out.onnx", 2, "G0701", &["--verify", "--routing"]),
        ("merge tiny.onnx --adapter run --routing top -o out.onnx", 2, "G0701", &["mean"]),
        (
            "merge tiny.onnx --adapter run=0.5 --routing mean --calibrate data.jsonl -o out.onnx",
            2,
            "G0701",
            &["whole"],
        ),
        (
            "merge tiny.onnx --adapter run --routing mean --calibrate no.jsonl -o out.onnx",
            1,
            "G0205",
            &["no.jsonl"],
        ),
        (
            "merge tiny.onnx --adapter adapter --routing mean --calibrate data.jsonl -o out.onnx",
            5,
            "G0307",
            &["no router"],
        ),
    ];
    refuses(&sandbox, refusals);
}

#[test]
fn routing_is_told_for_each_domain() {
    let sandbox = sandbox();
    let row = |i: usize, domain: &str| {
        format!("{{\"input_ids\": [{i}, {i}], \"label\": {}, \"domain\": \"{domain}\"}}\n", i % 3)
    };
    let rows: String = (0..6).map(|i| row(i, if i < 2 { "low" } else { "high" })).collect();
    sandbox.write("domains.jsonl", rows);
    let train =
        "train tiny.onnx --loss cross-entropy --method hydra --set experts=2 --rank 2 --targets up --steps 4";
    let told = |flags: &str, out: &str| {
        let outcome = sandbox.succeeds(&format!("{train} {flags} --out {out}"));
        let text = String::from_utf8(sandbox.read(&format!("{out}/metrics.jsonl"))).expect("text");
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let lines: Vec<_> = lines.filter(|line| line["routing"].is_object()).collect();
        lines.iter().for_each(|line| {
            let domain = line["domain"].as_str().expect("a domain");
            assert!(outcome.stderr.contains(&format!("routing of {domain}: ")), "{}", outcome.stderr);
        });
        lines
    };
    let lines = told("--data domains.jsonl", "domains");
    let names: Vec<_> = lines.iter().map(|line| line["domain"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["all", "high", "low"]);
    let share = |i: usize| lines[i]["routing"]["enc.up"][0].as_f64().expect("a share");
    // Four rows are high and two low.
    assert!(
        (share(0) - (4.0 * share(1) + 2.0 * share(2)) / 6.0).abs() < 1e-6 && share(1) != share(2),
        "{lines:?}"
    );
    // Without domains, labels tell rows apart; what is evaluated on goes before what is trained on.
    let lines = told("--data domains.jsonl --eval data.jsonl", "labels");
    let names: Vec<_> = lines.iter().map(|line| line["domain"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["all", "label 0", "label 1", "label 2"]);
    sandbox.succeeds(&format!("{train} --data domains.jsonl --out domains --resume"));
    let again = String::from_utf8(sandbox.read("domains/metrics.jsonl")).expect("text");
    assert_eq!(again.matches("\"routing\"").count(), 3, "a run that is complete is not told of again");
}

#[test]
fn the_text_decides_how_many_experts_there_are() {
    let sandbox = sandbox();
    let row = |text: &str| format!("{{\"text\": \"{text}\", \"label\": 0}}\n");
    sandbox.write("kinds.jsonl", ["good good", "bad", "day of days"].map(row).concat().repeat(5));
    let line =
        "tiny.onnx --data kinds.jsonl --tokenizer tokenizer.json --loss cross-entropy --targets up --steps 1";
    let outcome = sandbox.succeeds(&format!("train {line} --method hydra --set experts=auto --out run"));
    assert!(
        outcome.stderr.contains("experts: 3, where the squared errors of k-means over 15 texts bend: 1: "),
        "{}",
        outcome.stderr
    );
    let config: serde_json::Value = serde_json::from_slice(&sandbox.read("run/adapter_config.json")).unwrap();
    assert_eq!(config["lora_nums"], 3);
    let compared = sandbox.succeeds(&format!(
        "compare {line} --methods hydra+experts=auto --budget 60 --seeds 1 --json --out cmp"
    ));
    let hydra = &compared.json()["methods"][0];
    // 4 × 4 with three heads: 16·rank + 12 parameters.
    assert_eq!(
        (&hydra["set"]["experts"], &hydra["rank"], &hydra["parameters"]),
        (&"3".into(), &3.into(), &60.into())
    );
    let refusals: &[Refusal] = &[
        (
            "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --method hydra --set experts=auto --out out",
            2,
            "G0701",
            &["`experts=auto`", "not text", "tokenizer"],
        ),
        (
            "inject tiny.onnx --targets up --method hydra --set experts=auto -o out.onnx",
            2,
            "G0304",
            &["`auto`"],
        ),
    ];
    refuses(&sandbox, refusals);
}
