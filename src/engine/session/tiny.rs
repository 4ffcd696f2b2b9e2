//! Builds small ONNX graphs, field by field of `onnx.proto`, so that no Python is needed.
//!
//! They are the convolution that probes a provider, and the graphs of tests.

use crate::tensor::Dtype;

/// One input or output: name, element type, and shape with the batch dimension; -1 means any
/// length.
pub(super) type Outlet<'a> = (&'a str, Dtype, &'a [i64]);

/// One node of a graph.
pub(super) struct Node<'a> {
    pub(super) op: &'a str,
    pub(super) inputs: &'a [&'a str],
    pub(super) outputs: &'a [&'a str],
    pub(super) attributes: &'a [(&'a str, Attribute<'a>)],
}

#[cfg_attr(not(test), expect(dead_code, reason = "only test graphs have attributes"))]
pub(super) enum Attribute<'a> {
    Int(i64),
    Ints(&'a [i64]),
}

/// Returns a graph of operator set 13 as the bytes of an ONNX file.
pub(super) fn model(nodes: &[Node<'_>], inputs: &[Outlet<'_>], outputs: &[Outlet<'_>]) -> Vec<u8> {
    let mut graph = Message::default();
    for node in nodes {
        graph.message(1, |message| {
            node.inputs.iter().for_each(|name| message.bytes(1, name.as_bytes()));
            node.outputs.iter().for_each(|name| message.bytes(2, name.as_bytes()));
            message.bytes(4, node.op.as_bytes());
            for (name, attribute) in node.attributes {
                message.message(5, |message| {
                    message.bytes(1, name.as_bytes());
                    match attribute {
                        Attribute::Int(value) => {
                            message.number(3, *value as u64);
                            message.number(20, 2);
                        }
                        Attribute::Ints(values) => {
                            values.iter().for_each(|&value| message.number(8, value as u64));
                            message.number(20, 7);
                        }
                    }
                });
            }
        });
    }
    graph.bytes(2, b"tiny");
    for outlet in inputs {
        graph.message(11, |message| message.outlet(*outlet));
    }
    for outlet in outputs {
        graph.message(12, |message| message.outlet(*outlet));
    }

    let mut model = Message::default();
    model.number(1, 8);
    model.bytes(7, &graph.0);
    model.message(8, |opset| opset.number(2, 13));
    model.0
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn outlet(&mut self, (name, dtype, shape): Outlet<'_>) {
        self.bytes(1, name.as_bytes());
        let element = match dtype {
            Dtype::F32 => 1,
            Dtype::U8 => 2,
            Dtype::I64 => 7,
        };
        self.message(2, |kind| {
            kind.message(1, |tensor| {
                tensor.number(1, element);
                tensor.message(2, |dims| {
                    for &length in shape {
                        dims.message(1, |dim| match length {
                            -1 => dim.bytes(2, b"open"),
                            length => dim.number(1, length as u64),
                        });
                    }
                });
            });
        });
    }
}
