//! Reading constants out of ONNX tensors.

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, TensorProto};

/// Elements of a constant tensor, widened to what quantization arithmetic needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Elements {
    /// Quantized codes (int8, uint8, int16, uint16, int32) or 64-bit shapes.
    Integers(Vec<i64>),
    /// 32-bit floats.
    Floats(Vec<f32>),
}

/// The initializer called `name`.
pub(super) fn initializer<'g>(graph: &'g GraphProto, name: &str) -> Option<&'g TensorProto> {
    graph.initializer.iter().find(|tensor| tensor.name == name)
}

/// Number of elements that `dims` announce; `None` for a negative dimension or an overflow.
pub(super) fn element_count(dims: &[i64]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |count, &dim| count.checked_mul(usize::try_from(dim).ok()?))
}

/// Reads all elements of `tensor`.
///
/// # Errors
/// A sentence without the tensor's name: an element type that is not handled, data outside the file, or a length that
/// contradicts the dimensions.
pub(super) fn elements(tensor: &TensorProto) -> Result<Elements, String> {
    if tensor.data_location == Some(DataLocation::External as i32) {
        return Err("its data lies outside the file; export the model as one file".into());
    }
    let expected =
        element_count(&tensor.dims).ok_or_else(|| format!("impossible shape {:?}", tensor.dims))?;
    let kind = DataType::try_from(tensor.data_type)
        .map_err(|_| format!("unknown element type {}", tensor.data_type))?;
    let raw = tensor.raw_data.as_slice();
    let typed = raw.is_empty();
    let narrow = || tensor.int32_data.iter().map(|&v| i64::from(v)).collect();
    let read = match kind {
        DataType::Float if typed => Elements::Floats(tensor.float_data.clone()),
        DataType::Float => Elements::Floats(chunks(raw, f32::from_le_bytes)?),
        DataType::Int8 | DataType::Uint8 | DataType::Int16 | DataType::Uint16 | DataType::Int32 if typed => {
            Elements::Integers(narrow())
        }
        DataType::Int64 if typed => Elements::Integers(tensor.int64_data.clone()),
        DataType::Int8 => Elements::Integers(chunks(raw, |b| i64::from(i8::from_le_bytes(b)))?),
        DataType::Uint8 => Elements::Integers(chunks(raw, |b| i64::from(u8::from_le_bytes(b)))?),
        DataType::Int16 => Elements::Integers(chunks(raw, |b| i64::from(i16::from_le_bytes(b)))?),
        DataType::Uint16 => Elements::Integers(chunks(raw, |b| i64::from(u16::from_le_bytes(b)))?),
        DataType::Int32 => Elements::Integers(chunks(raw, |b| i64::from(i32::from_le_bytes(b)))?),
        DataType::Int64 => Elements::Integers(chunks(raw, i64::from_le_bytes)?),
        other => return Err(format!("element type {} is not handled", other.as_str_name())),
    };
    let actual = match &read {
        Elements::Integers(values) => values.len(),
        Elements::Floats(values) => values.len(),
    };
    if actual == expected {
        Ok(read)
    } else {
        Err(format!("its shape {:?} announces {expected} elements, it holds {actual}", tensor.dims))
    }
}

/// A float tensor with the data stored raw, as the ONNX exporters write it.
pub(super) fn float_tensor(name: &str, dims: Vec<i64>, values: &[f32]) -> TensorProto {
    TensorProto {
        dims,
        data_type: DataType::Float as i32,
        name: name.to_owned(),
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

fn chunks<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
    let (whole, rest) = raw.as_chunks::<N>();
    if rest.is_empty() {
        Ok(whole.iter().map(|&bytes| read(bytes)).collect())
    } else {
        Err(format!("{} bytes do not divide into elements of {N}", raw.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_and_typed_data_read_alike() {
        let raw = TensorProto {
            dims: vec![2],
            data_type: DataType::Int8 as i32,
            raw_data: vec![0x80, 0x7f],
            ..TensorProto::default()
        };
        let typed = TensorProto { raw_data: vec![], int32_data: vec![-128, 127], ..raw.clone() };
        assert_eq!(elements(&raw).unwrap(), Elements::Integers(vec![-128, 127]));
        assert_eq!(elements(&raw), elements(&typed));
        let float = float_tensor("w", vec![1, 2], &[0.5, -2.0]);
        assert_eq!(elements(&float).unwrap(), Elements::Floats(vec![0.5, -2.0]));
    }

    #[test]
    fn contradictions_are_named() {
        let short = TensorProto {
            dims: vec![3],
            data_type: DataType::Int8 as i32,
            raw_data: vec![1],
            ..TensorProto::default()
        };
        assert!(elements(&short).unwrap_err().contains("announces 3 elements, it holds 1"));
        let odd = TensorProto { data_type: DataType::Float as i32, ..short.clone() };
        assert!(elements(&odd).unwrap_err().contains("do not divide"));
        assert!(elements(&TensorProto { dims: vec![-1], ..short.clone() }).is_err());
        assert!(elements(&TensorProto { dims: vec![i64::MAX, i64::MAX], ..short.clone() }).is_err());
        let outside = TensorProto { data_location: Some(DataLocation::External as i32), ..short };
        assert!(elements(&outside).unwrap_err().contains("outside the file"));
    }
}
