"""Labelled images as serialised tf.train.Examples, without TensorFlow."""

from typing import Any

from google.protobuf import (
  descriptor_pb2,
  descriptor_pool,
  message,
  message_factory,
  text_format,
)

from bignas_jax.data import decode as decode_lib

# The part of TensorFlow's example.proto and feature.proto that is needed here.
_PROTO = """
name: "example.proto" package: "tensorflow" syntax: "proto3"
message_type { name: "BytesList" field {
  name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Int64List" field {
  name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature"
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".tensorflow.BytesList" }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".tensorflow.Int64List" } }
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED
    type: TYPE_MESSAGE type_name: ".tensorflow.Features.Entry" }
  nested_type { name: "Entry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL
      type: TYPE_MESSAGE type_name: ".tensorflow.Feature" } } }
message_type { name: "Example" field {
  name: "features" number: 1 label: LABEL_OPTIONAL
  type: TYPE_MESSAGE type_name: ".tensorflow.Features" } }
"""
# A pool of its own: TensorFlow in the same process has the same names.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()))
_Example = message_factory.GetMessageClass(
  _POOL.FindMessageTypeByName('tensorflow.Example')
)


def encode(file_name: str, image: bytes, label: int) -> bytes:
  """Returns an example with the features that TFDS gives to ImageNet."""
  example: Any = _Example()
  feature = example.features.feature
  feature['file_name'].bytes_list.value.append(file_name.encode())
  feature['image'].bytes_list.value.append(image)
  feature['label'].int64_list.value.append(label)
  return example.SerializeToString(deterministic=True)


def decode(record: bytes) -> tuple[str, bytes, int]:
  """Returns file name (empty if there is none), encoded image and label.

  Raises:
    Damaged: the record is no example with an `image` and a `label`.
  """
  try:
    example: Any = _Example.FromString(record)
    feature = example.features.feature
    image = feature['image'].bytes_list.value[0]
    label = feature['label'].int64_list.value[0]
  except (message.DecodeError, IndexError):
    raise decode_lib.Damaged(
      'not a tf.train.Example with an image and a label'
    ) from None
  names = feature['file_name'].bytes_list.value
  name = names[0].decode(errors='backslashreplace') if names else ''
  return name, image, label
