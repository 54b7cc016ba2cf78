//! What holds for every adapter method, tested once over the table.
mod cases;

use cases::*;
use graft_ir::{
    Array, Graph, Precision,
    eval::{difference, eval},
    parse,
    text::{PrintOptions, print},
};
use graft_passes::{inject, inject::METHODS, merge, target};
use graft_tests::formula;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_adapter_at_its_initial_state_changes_nothing(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let base = base(form);
            let adapted = plain(&case.inject(form), &base);
            let x = feeds(&base, form);
            for precision in [Precision::Exact, Precision::Native] {
                // A Gemm rounds product and bias at once, the adapted one rounds between them.
                if precision == Precision::Native && matches!(form.layout, Layout::Gemm | Layout::GemmTransposed) {
                    continue;
                }
                let (before, after) =
                    (eval(&base, &x, precision).unwrap(), eval(&adapted, &x, precision).unwrap());
                let allowed = case.rounding(&base, form.layout, precision, &before[0]);
                prop_assert!(difference(&before[0], &after[0]).unwrap().0 <= allowed, "{}", case.label());
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let loss = format!("{}, loss{{kind=mse}}", case.inject(form));
            check_gradients(&loss, form, &case.label())?;
        }
    }

    #[test]
    fn gradients_with_draws_agree_with_finite_differences(form in forms()) {
        for case in drawing() {
            let form = case.fitted(form);
            let loss = format!("{}, loss{{kind=mse}}", case.training(form));
            check_gradients(&loss, form, &case.label())?;
        }
    }

    #[test]
    fn gradients_of_penalties_agree_with_finite_differences(form in forms()) {
        for case in penalised() {
            let form = case.fitted(form);
            let loss = format!("{}, loss{{kind=mse}}, penalty", case.inject(form));
            check_gradients(&loss, form, &case.label())?;
        }
    }

    /// Whatever a rank that does not count is trained beside, it adds nothing until it is trained itself.
    #[test]
    fn a_rank_that_begins_to_count_changes_nothing(form in forms()) {
        const COUNT: usize = 2;
        let form = Form { rank: COUNT, ..form };
        let base = base(form);
        let growth = "growth=linear,target_rank=3,max_rank=4";
        let mut adapted = run(&format!("inject{{method=tri,rank=2,alpha=3,{growth},targets=re:.*}}"), &base, None);
        train_ranks(&mut adapted, form, COUNT);
        let x = feeds(&base, form);
        let whole = exact(&adapted, &x).remove(0);
        let targets: Vec<String> =
            inject::adapters(&adapted).unwrap().into_iter().map(|adapter| adapter.target).collect();
        for n in COUNT..=4 {
            let kept = targets.iter().map(|target| (target.clone(), (0..n).collect())).collect();
            let (left, files) = inject::compacted(&adapted, &|_| None, &kept).unwrap();
            prop_assert!(left.iter().all(|a| a.rank == n && (a.alpha - n as f64).abs() < 1e-6), "{left:?}");
            let spec = format!("inject{{method=tri,rank={n},alpha={n},targets=re:.*}}");
            let grown = exact(&run(&spec, &base, Some(&files)), &x).remove(0);
            prop_assert!(apart(&whole, &grown) < 1e-12, "{n} ranks");
        }
    }

    #[test]
    fn dropout_leaves_the_base_alone_and_is_the_same_again(form in forms()) {
        for case in drawing() {
            let form = case.fitted(form);
            let base = base(form);
            let spec = case.training(form);
            let x = feeds(&base, form);
            let counters = |step| [5, step].map(|n| Some(Array::int(graft_ir::DType::Int64, vec![], vec![n])));
            let at = |graph: &Graph, step| exact(graph, &[&x[..], &counters(step)].concat()).remove(0);
            let mut adapted = plain(&spec, &base);
            let before = exact(&base, &x).remove(0);
            let allowed = case.rounding(&base, form.layout, Precision::Exact, &before);
            prop_assert!(difference(&before, &at(&adapted, 1)).unwrap().0 <= allowed, "{}", case.label());
            train(&mut adapted, form);
            prop_assert_eq!(at(&adapted, 1), at(&adapted, 1));
            let steps: Vec<Array> = (1..40).map(|step| at(&adapted, step)).collect();
            prop_assert!(steps.iter().any(|y| *y != steps[0]), "{}", case.label());
        }
    }

    #[test]
    fn the_gradient_body_is_the_gradient_of_the_body(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let start = case.inject(form);
            let inlined = run(&format!("{start}, loss{{kind=mse}}, grad"), &base(form), None);
            let fused = run(&format!("canonicalize, {start}, fuse, loss{{kind=mse}}, grad"), &base(form), None);
            let call = format!("{}Grad", case.fused());
            prop_assert_eq!(fused.nodes.iter().filter(|n| n.op == call).count(), 2, "{}", case.label());
            let a = exact(&inlined, &feeds(&inlined, form));
            let b = exact(&fused, &feeds(&fused, form));
            for &v in &inlined.outputs {
                let name = inlined.name(v);
                let (a, b) = (output(&inlined, &a, name), output(&fused, &b, name));
                prop_assert!(apart(&a, &b) < 1e-12, "{} {name}", case.label());
            }
        }
    }

    #[test]
    fn a_fused_adapter_is_inlined_to_itself(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let start = format!("canonicalize, {}", case.inject(form));
            // What is detached is a call before.
            let mut there = run(&format!("{start}, inline"), &base(form), None);
            let mut back = run(&format!("{start}, fuse, inline"), &base(form), None);
            let fused = run(&format!("{start}, fuse"), &base(form), None);
            prop_assert_eq!(fused.nodes.iter().filter(|n| n.op == case.fused()).count(), 2);
            for graph in [&mut there, &mut back] {
                anonymise(graph);
            }
            prop_assert_eq!(there.to_string(), back.to_string(), "{}", case.label());
        }
    }

    #[test]
    fn a_merged_weight_reproduces_the_output(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let base = base(form);
            let mut adapted = plain(&case.inject(form), &base);
            train(&mut adapted, form);
            let merge = try_run("merge", &adapted, None);
            if case.variant.merged().is_none() {
                let error = merge.err().unwrap_or_else(|| panic!("{} does not merge", case.label()));
                prop_assert_eq!(error.code, graft_ir::Code::MERGE);
                prop_assert!(error.message.contains(case.method.name) && error.help.is_some());
                continue;
            }
            let merged = merge.unwrap_or_else(|e| panic!("{}: {e}", case.label()));
            prop_assert!(inject::adapters(&merged).unwrap().is_empty());

            let shape = |g: &Graph| print(g, PrintOptions { weight_elements: 0, ..PrintOptions::default() });
            prop_assert_eq!(shape(&merged), shape(&run("", &base, None)), "{}: the adapter is off again", case.label());
            let x = feeds(&base, form);
            let (a, b) = (exact(&adapted, &x), exact(&merged, &x));
            let (worst, _) = difference(&a[0], &b[0]).expect("equal shapes");
            prop_assert!(worst <= weight_rounding(&merged), "{}", case.label());

            let files = inject::file_tensors(&adapted, &|_| Ok(None)).unwrap();
            let spec = format!("merge{{{}}}", case.options(form));
            prop_assert_eq!(whole_text(&run(&spec, &base, Some(&files))), whole_text(&merged), "{}", case.label());

            let restored = merge::Originals::of(&base, &merged).put_back(&merged).unwrap();
            prop_assert_eq!(whole_text(&restored), whole_text(&run("", &base, None)), "{}: unmerged", case.label());
        }
    }

    #[test]
    fn adapter_files_restore_the_adapter(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let spec = case.inject(form);
            let mut adapted = run(&spec, &base(form), None);
            train(&mut adapted, form);
            let files = inject::file_tensors(&adapted, &|_| Ok(None)).unwrap();
            prop_assert_eq!(&run(&spec, &base(form), Some(&files)), &adapted, "{}", case.label());
            let without_targets = spec.replace(",targets=re:.*", "");
            prop_assert_eq!(&run(&without_targets, &base(form), Some(&files)), &adapted, "{}", case.label());
        }
    }

    #[test]
    fn parameters_are_as_many_as_the_formula_says(form in forms()) {
        for case in cases() {
            let form = case.fitted(form);
            let adapted = run(&case.inject(form), &base(form), None);
            let adapters = inject::adapters(&adapted).unwrap();
            prop_assert_eq!(adapters.len(), 2);
            let sizes = [(form.d_in, form.hidden), (form.hidden, form.d_out)];
            for (adapter, (d_in, d_out)) in adapters.iter().zip(sizes) {
                let config = adapter.config().unwrap();
                let size = |name: &str| match name {
                    "in" => d_in,
                    "out" => d_out,
                    "rank" => config.rank,
                    setting => config.get(setting).expect("a setting"),
                };
                let expected = formula::value(case.variant.parameters, &size);
                prop_assert_eq!(adapter.parameters, expected, "{}", case.label());
                prop_assert_eq!(adapter.rank, form.rank);
            }
        }
    }
}

#[test]
fn base_weights_get_no_gradient() {
    for case in cases() {
        let graph = run(&format!("{}, loss{{kind=mse}}, grad", case.inject(PLAIN)), &base(PLAIN), None);
        let gradients: Vec<&str> =
            graph.outputs.iter().map(|&v| graph.name(v)).filter(|n| n.ends_with(".grad")).collect();
        let trained: Vec<String> =
            inject::trainable(&graph).iter().map(|&v| format!("{}.grad", graph.name(v))).collect();
        assert_eq!(gradients, trained, "{}", case.label());
        assert!(
            target::targets(&base(PLAIN)).unwrap().iter().all(|l| !gradients.contains(&l.weight.as_str()))
        );
    }
}

/// The oldest opset that a variant states is the oldest that all its ops can be said in.
#[test]
fn variants_state_their_oldest_opset() {
    for case in cases() {
        let text = |opset: i64| {
            let head = format!("<ir_version: 10, opset_import: [\"\" : {opset}]>");
            format!("{head}\ng (float[n, 4] x) => (float[n, 2] y) <float[4, 2] w> {{ y = MatMul (x, w) }}")
        };
        let adapted = |opset: i64| {
            let mut graph = parse(&text(opset)).unwrap();
            randomise(&mut graph, 1);
            try_run(&format!("{}, fuse, loss{{kind=mse}}, grad, inline", case.inject(PLAIN)), &graph, None)
        };
        let oldest = case.variant.opset;
        adapted(oldest).unwrap_or_else(|e| panic!("{} at {oldest}: {e}", case.label()));
        let error = adapted(oldest - 1).expect_err("an older opset is refused");
        assert_eq!(error.code, graft_ir::Code::OPSET, "{}", case.label());
    }
}

/// The table of methods in the README says what the table in the code says.
#[test]
fn the_readme_lists_every_variant() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let mut missing = String::new();
    for method in METHODS {
        for variant in method.variants {
            let set: String = variant.example.iter().map(|(k, v)| format!(" --set {k}={v}")).collect();
            let merges = if variant.merged().is_some() { "yes" } else { "no" };
            let (about, parameters) = (variant.about, variant.parameters);
            let row = format!("| `{}{set}` | {about} | {parameters} | {merges} |\n", method.name);
            if !readme.contains(&row) {
                missing += &row;
            }
        }
    }
    assert!(missing.is_empty(), "README.md lacks these rows:\n{missing}");
}
