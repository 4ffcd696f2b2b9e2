//! Reads the operators and constants of a graph from its ONNX file.
//!
//! The messages below declare only the fields of `onnx.proto` that are read here. Protocol Buffers
//! skips all others.

use std::collections::HashMap;
use std::path::Path;

use prost::Message;

/// `TensorProto.DataType.FLOAT`
const FLOAT: i32 = 1;

#[derive(Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
}

#[derive(Message)]
struct NodeProto {
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

/// Operators and constants of a graph.
#[derive(Debug, Clone, Default)]
pub struct OnnxGraph {
    operators: Vec<String>,
    constants: HashMap<String, Constant>,
}

/// Shape and values of a constant.
type Constant = (Vec<usize>, Vec<f32>);

impl OnnxGraph {
    /// Reads the operators of a file in order, and its single-precision constants.
    ///
    /// Constants in external data files are skipped.
    ///
    /// # Errors
    /// The file cannot be read or is not an ONNX file.
    pub fn read(file: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
        let graph = ModelProto::decode(&*bytes)
            .map_err(|error| error.to_string())?
            .graph
            .unwrap_or_default();
        Ok(Self {
            operators: graph.node.into_iter().map(|node| node.op_type).collect(),
            constants: graph.initializer.into_iter().filter_map(constant).collect(),
        })
    }

    /// Returns the operators in execution order.
    pub fn operators(&self) -> impl Iterator<Item = &str> {
        self.operators.iter().map(String::as_str)
    }

    /// Returns the shape and values of a constant.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.constants.get(name).map(|(shape, data)| (shape.as_slice(), data.as_slice()))
    }
}

fn constant(tensor: TensorProto) -> Option<(String, Constant)> {
    let (words, []) = tensor.raw_data.as_chunks::<4>() else { return None };
    let shape: Vec<usize> =
        tensor.dims.iter().map(|&side| usize::try_from(side).ok()).collect::<Option<_>>()?;
    let count = shape.iter().try_fold(1_usize, |count, &side| count.checked_mul(side))?;
    (tensor.data_type == FLOAT && words.len() == count).then(|| {
        let data = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        (tensor.name, (shape, data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, data_type: i32, dims: &[i64], values: &[f32]) -> TensorProto {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        TensorProto { dims: dims.to_vec(), data_type, name: name.into(), raw_data }
    }

    #[test]
    fn only_single_precision_constants_are_read() {
        let node = |op_type: &str| NodeProto { op_type: op_type.into() };
        let initializer = vec![
            tensor("weight", FLOAT, &[2, 1], &[0.5, -3.0]),
            tensor("scalar", FLOAT, &[], &[7.0]),
            tensor("of another type", 7, &[1], &[1.0]),
            tensor("elsewhere", FLOAT, &[3], &[]),
            tensor("negative", FLOAT, &[-1], &[1.0]),
            tensor("vast", FLOAT, &[i64::MAX, i64::MAX], &[1.0]),
        ];
        let graph = GraphProto { node: vec![node("Conv"), node("Relu")], initializer };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("graph.onnx");
        std::fs::write(&file, ModelProto { graph: Some(graph) }.encode_to_vec()).unwrap();
        let graph = OnnxGraph::read(&file).unwrap();
        assert_eq!(graph.operators().collect::<Vec<_>>(), ["Conv", "Relu"]);
        assert_eq!(graph.constant("weight"), Some((&[2, 1][..], &[0.5, -3.0][..])));
        assert_eq!(graph.constant("scalar"), Some((&[][..], &[7.0][..])));
        for name in ["of another type", "elsewhere", "negative", "vast", "unknown"] {
            assert_eq!(graph.constant(name), None, "{name}");
        }
        std::fs::write(&file, b"no graph").unwrap();
        assert!(OnnxGraph::read(&file).is_err() && OnnxGraph::read(folder.path()).is_err());
    }
}
