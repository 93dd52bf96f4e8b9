//! The cases are all there: a missing one must not look like a passing one.

#[test]
fn every_case_has_a_test() {
    let mut found: Vec<String> = std::fs::read_dir(crate::data())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| crate::data().join(name).join("tensors.safetensors").exists())
        .collect();
    found.sort();
    let tested = [
        "dora_all",
        "dora_qv",
        "freeze",
        "full",
        "legacy_names",
        "lora_all",
        "lora_qv",
        "multilabel",
        "patterns",
        "registers",
        "swiglu",
        "vits14_224",
    ];
    assert_eq!(found, tested);
}
