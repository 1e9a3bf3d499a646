use super::super::error::VisionError;
use super::super::testing::{self, Graph};
use super::*;

fn refusal(bytes: &[u8]) -> Unfit {
    match testing::load(bytes, (16, 16)) {
        Err(VisionError::Unfit { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_operator_is_named() {
    let unknown = Graph::new().node("Frobnicate", &["x"], "y").build(&["y"]);
    assert_eq!(refusal(&unknown), Unfit::Operator { node: "y".into(), operator: "Frobnicate".into() });
    // Known to ONNX, but it loops or makes data of any size.
    for operator in ["Loop", "Scan", "If", "ConstantOfShape", "Expand", "Tile", "Range", "Einsum"] {
        let bytes = Graph::new().node(operator, &["x"], "y").build(&["y"]);
        assert!(matches!(refusal(&bytes), Unfit::Operator { .. }), "{operator}");
    }
}

#[test]
fn a_loop_in_the_graph_is_refused() {
    let bytes = Graph::new().node("Add", &["x", "b"], "a").node("Relu", &["a"], "b").build(&["b"]);
    assert_eq!(refusal(&bytes), Unfit::Loop { node: "a".into(), value: "b".into() });
    let itself = Graph::new().node("Add", &["x", "y"], "y").build(&["y"]);
    assert!(matches!(refusal(&itself), Unfit::Loop { .. }));
    let twice = Graph::new().node("Relu", &["x"], "y").node("Abs", &["x"], "y").build(&["y"]);
    assert_eq!(refusal(&twice), Unfit::Twice { value: "y".into() });
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let bytes = testing::prelu_graph(&[3, 1, 1], &[0.5, bad, 2.0]);
        assert_eq!(refusal(&bytes), Unfit::NotFinite { tensor: "slopes".into() });
        let raw: Vec<u8> = [0.5, bad, 2.0].iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
        let bytes = Graph::new().raw("w", &[3, 1, 1], raw).node("Mul", &["x", "w"], "y").build(&["y"]);
        assert_eq!(refusal(&bytes), Unfit::NotFinite { tensor: "w".into() });
    }
}

#[test]
fn two_gigabytes_claimed_in_a_kilobyte_are_refused_at_once() {
    for dims in [&[1_i64 << 29][..], &[1 << 40, 1 << 40], &[-1], &[4]] {
        let bytes = Graph::new().raw("w", dims, vec![0; 12]).node("Mul", &["x", "w"], "y").build(&["y"]);
        assert!(bytes.len() < 1024);
        assert!(matches!(refusal(&bytes), Unfit::Claim { present: 3, .. }), "{dims:?}");
    }
}

#[test]
fn small_files_cannot_ask_for_large_memory_or_endless_arithmetic() {
    // An outer sum of two constants, folded at load, would be 4 GB.
    let long: Vec<u8> = vec![0; 4 << 15];
    let constants = Graph::new()
        .raw("a", &[1 << 15, 1], long.clone())
        .raw("b", &[1, 1 << 15], long.clone())
        .node("Add", &["a", "b"], "c")
        .node("Add", &["x", "c"], "y")
        .build(&["y"]);
    assert!(matches!(refusal(&constants), Unfit::ConstantArithmetic { .. }));
    // The same with the picture in it.
    let broadcast = Graph::new()
        .raw("a", &[1 << 15, 1, 1, 1, 1, 1], long.clone())
        .raw("b", &[1, 1 << 15, 1, 1, 1, 1], long)
        .node("Add", &["x", "a"], "c")
        .node("Add", &["c", "b"], "y")
        .build(&["y"]);
    assert!(matches!(refusal(&broadcast), Unfit::Memory { .. }));
    // A padded picture of many gigabytes.
    let pads: Vec<u8> =
        [0_i64, 0, 1 << 20, 1 << 20, 0, 0, 1 << 20, 1 << 20].iter().flat_map(|v| v.to_le_bytes()).collect();
    let padded = Graph::new().raw_i64("p", &[8], pads).node("Pad", &["x", "p"], "y").build(&["y"]);
    assert!(matches!(refusal(&padded), Unfit::Memory { .. }));
}

#[test]
fn an_input_that_is_no_picture_is_refused() {
    for dims in [&[1_i64, 1, 16, 16][..], &[1, 3, 16], &[2, 3, 16, 16], &[1, 16, 16, 3]] {
        let bytes = Graph::new().input(dims).node("Relu", &["x"], "y").build(&["y"]);
        assert!(matches!(refusal(&bytes), Unfit::Input { .. }), "{dims:?}");
    }
    let free = Graph::new().input(&[0, 3, 0, 0]).node("Relu", &["x"], "y").build(&["y"]);
    testing::load(&free, (16, 16)).unwrap();
}

#[test]
fn many_pieces_are_counted_before_they_are_decoded() {
    // ModelProto { graph: GraphProto { node: [{}, {}, …] } }, two bytes a node.
    let nodes = 3 * MAX_PIECES;
    let mut bytes = vec![0x3a];
    let mut length = nodes * 2;
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend([0x0a, 0].repeat(nodes));
    assert_eq!(refusal(&bytes), Unfit::TooManyPieces { limit: MAX_PIECES });
}

#[test]
fn what_the_file_says_reaches_the_message_cut_and_without_control_characters() {
    let name = format!("\u{1b}[31m{}", "n".repeat(500));
    let said = refusal(&Graph::new().node("Nope", &["x"], &name).build(&[&name])).to_string();
    assert!(!said.contains('\u{1b}') && said.len() < 300, "{said}");
}
