use burn::tensor::Device;
use lapidary_models::objective::{Classification, Objective};
use lapidary_models::{Checkpointed, Classifier, Pass, bert::Bert, parameters};

use super::{GOLDEN, Golden, logits, values};

/// Padding positions too: a padding token is hidden from the others and, here as there, still sees them.
#[test]
fn hidden_states_and_logits_are_those_of_transformers() {
    for golden in GOLDEN.map(Golden::open) {
        let (model, batch) = (golden.model(&Device::flex()), golden.batch());
        let states = model.hidden_states(&batch);
        assert!(golden.expected().tensor(&format!("hidden.{}", states.len())).is_err(), "a state for each");
        for (layer, state) in states.into_iter().enumerate() {
            golden.assert_close(&values(state), &format!("hidden.{layer}"));
        }
        golden.assert_close(&logits(&model, &batch), "logits");
    }
}

#[test]
fn gradients_are_those_of_transformers() {
    for golden in ["bert-a", "bert-spans", "bert-tags"].map(Golden::open) {
        let (model, batch) = (golden.model(&Device::flex().autodiff()), golden.batch());
        let counted = Objective::<Bert>::targets(&Classification, &batch);
        let loss = Classification.loss(&model, &batch, &Pass::evaluation(), counted as f32).expect("labels that fit");
        golden.assert_close(&values(loss.clone()), "loss");

        let gradients = parameters::gradients(&model, loss.backward());
        let mut names = Vec::new();
        parameters::visit(&model, &mut |parameter| {
            let name = format!("grad.{}", Bert::checkpoint_name(parameter.path));
            let gradient = gradients.get(&parameter.id).unwrap_or_else(|| panic!("{} has no gradient", parameter.path));
            golden.assert_close(&parameters::elements(gradient.clone()), &name);
            names.push(name);
        });
        let expected = golden.expected();
        let mut expected: Vec<&str> = expected.names().into_iter().filter(|name| name.starts_with("grad.")).collect();
        expected.sort_unstable();
        names.sort_unstable();
        assert_eq!(names, expected);
    }
}

#[test]
fn a_graph_changes_no_value() {
    let golden = Golden::open("bert-b");
    let with_graph = logits(&golden.model(&Device::flex().autodiff()), &golden.batch());
    assert_eq!(with_graph, logits(&golden.model(&Device::flex()), &golden.batch()));
}

/// Curvature runs the blocks one by one.
#[test]
fn blocks_one_by_one_give_what_all_at_once_give() {
    let golden = Golden::open("bert-c");
    let (model, batch) = (golden.model(&Device::flex()), golden.batch());
    let last = model.hidden_states(&batch).pop().expect("one for each block and one more");
    assert_eq!(values(model.head(last, &batch, &Pass::evaluation())), logits(&model, &batch));
}
