#include "python/tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fedtlu {
namespace {

// What we know of torch; kept until the process ends.
struct Torch {
    const dlpack::Table* table = nullptr;
    PyTypeObject* tensor = nullptr;
    PyTypeObject* parameter = nullptr;
    // Methods of the types, called with the object.
    PyObject* is_neg = nullptr;
    PyObject* is_inference = nullptr;
    PyObject* untyped_storage = nullptr;
    PyObject* storage_offset = nullptr;
    PyObject* nbytes = nullptr;
    PyObject* inference_mode = nullptr;  // torch.is_inference_mode_enabled
    PyObject* requires_grad = nullptr;   // the attribute's name
};
Torch torch;

// A reference that is given back.
class Owned {
  public:
    explicit Owned(PyObject* object) : object_(object) {}
    ~Owned() { Py_XDECREF(object_); }
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    PyObject* get() const { return object_; }
    explicit operator bool() const { return object_ != nullptr; }

  private:
    PyObject* object_;
};

bool refuse() {
    PyErr_Clear();
    return false;
}

PyObject* call(PyObject* method, PyObject* object) {
    return PyObject_Vectorcall(method, &object, 1, nullptr);
}

bool false_of(PyObject* method, PyObject* object) {
    const Owned answer(call(method, object));
    return answer.get() == Py_False || (!answer && refuse());
}

bool integer_of(PyObject* method, PyObject* object, std::int64_t& out) {
    const Owned answer(call(method, object));
    if (!answer) return refuse();
    out = PyLong_AsLongLong(answer.get());
    return (out != -1 || !PyErr_Occurred()) || refuse();
}

// Describes a tensor of the exact types that holds bytes for all its elements.
bool describe(PyObject* given, dlpack::Tensor& out) {
    if (torch.table == nullptr || (Py_TYPE(given) != torch.tensor && Py_TYPE(given) != torch.parameter)) {
        return false;
    }
    std::int64_t held = 0;
    std::int64_t offset = 0;
    {
        // Raises inside of torch.vmap and other transforms, and for tensors without memory.
        const Owned storage(call(torch.untyped_storage, given));
        if (!storage || !integer_of(torch.nbytes, storage.get(), held)) return refuse();
    }
    if (!integer_of(torch.storage_offset, given, offset) || !false_of(torch.is_neg, given)) return false;
    if (torch.table->describe(given, &out) != 0) return refuse();
    if (out.device != dlpack::kCpu || out.type.bits % 8 != 0 || out.type.lanes != 1) return false;
    std::int64_t last = 0;  // of the elements, from the first one on
    for (std::int32_t i = 0; i < out.dimensions; ++i) {
        if (out.shape[i] == 0) return true;
        if (out.strides == nullptr) continue;
        if (out.strides[i] < 0) return false;
        last += (out.shape[i] - 1) * out.strides[i];
    }
    if (out.strides == nullptr) {
        last = 1;
        for (std::int32_t i = 0; i < out.dimensions; ++i) last *= out.shape[i];
        --last;
    }
    return out.data != nullptr && held / (out.type.bits / 8) >= offset + last + 1;
}

// Whether the dimensions from `first` on lie as one run of `size` elements.
bool contiguous(const dlpack::Tensor& tensor, std::int32_t first, std::int64_t& size) {
    size = 1;
    bool found = true;
    for (std::int32_t i = tensor.dimensions - 1; i >= first; --i) {
        found = found && (tensor.strides == nullptr || tensor.shape[i] == 1 || tensor.strides[i] == size);
        size *= tensor.shape[i];
    }
    return found || size == 0;
}

std::byte* start_of(const dlpack::Tensor& tensor) {
    return static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
}

}  // namespace

bool learn_torch(PyObject* module) {
    const Owned tensor(PyObject_GetAttrString(module, "Tensor"));
    const Owned nn(PyObject_GetAttrString(module, "nn"));
    const Owned parameter(nn ? PyObject_GetAttrString(nn.get(), "Parameter") : nullptr);
    const Owned storage(PyObject_GetAttrString(module, "UntypedStorage"));
    if (!tensor || !parameter || !storage) return false;
    Torch found;
    found.tensor = reinterpret_cast<PyTypeObject*>(tensor.get());
    found.parameter = reinterpret_cast<PyTypeObject*>(parameter.get());
    found.is_neg = PyObject_GetAttrString(tensor.get(), "is_neg");
    found.is_inference = PyObject_GetAttrString(tensor.get(), "is_inference");
    found.untyped_storage = PyObject_GetAttrString(tensor.get(), "untyped_storage");
    found.storage_offset = PyObject_GetAttrString(tensor.get(), "storage_offset");
    found.nbytes = PyObject_GetAttrString(storage.get(), "nbytes");
    found.inference_mode = PyObject_GetAttrString(module, "is_inference_mode_enabled");
    found.requires_grad = PyUnicode_InternFromString("requires_grad");
    for (PyObject* each : {found.is_neg, found.is_inference, found.untyped_storage, found.storage_offset,
                           found.nbytes, found.inference_mode, found.requires_grad}) {
        if (each == nullptr) return false;
    }
    const Owned capsule(PyObject_GetAttrString(tensor.get(), dlpack::kTable));
    if (!capsule) return refuse();
    const auto* table =
        static_cast<const dlpack::Table*>(PyCapsule_GetPointer(capsule.get(), dlpack::kCapsule));
    if (table == nullptr) return false;
    if (table->major != dlpack::kMajor || table->describe == nullptr) return false;
    Py_INCREF(tensor.get());
    Py_INCREF(parameter.get());
    found.table = table;
    torch = found;
    return true;
}

bool read_tensor(PyObject* given, Elements& out) {
    dlpack::Tensor tensor{};
    if (!describe(given, tensor)) return false;
    out = {start_of(tensor), 0, 1, 0, tensor.dimensions, tensor.type};
    return contiguous(tensor, 0, out.size);
}

bool read_matrix(PyObject* given, Elements& out) {
    dlpack::Tensor tensor{};
    if (!describe(given, tensor) || tensor.dimensions != 2) return false;
    out = {start_of(tensor), 0, tensor.shape[0], 0, 2, tensor.type};
    const bool found = contiguous(tensor, 1, out.size);
    const std::int64_t stride = tensor.strides == nullptr ? out.size : tensor.strides[0];
    out.between = stride * (tensor.type.bits / 8);
    return found;
}

bool float_type(const dlpack::Type& type, Dtype& out) {
    if (type.is(dlpack::kFloat, 32)) return out = Dtype::kFloat32, true;
    if (type.is(dlpack::kBfloat, 16)) return out = Dtype::kBfloat16, true;
    if (type.is(dlpack::kFloat, 16)) return out = Dtype::kFloat16, true;
    if (type.is(dlpack::kFloat, 64)) return out = Dtype::kFloat64, true;
    return false;
}

bool read_floats(PyObject* given, Elements& out, Dtype& dtype) {
    return read_tensor(given, out) && out.vector() && float_type(out.type, dtype);
}

bool changeable(PyObject* tensor) {
    const Owned grad(PyObject_GetAttr(tensor, torch.requires_grad));
    if (grad.get() != Py_False) return refuse();
    if (false_of(torch.is_inference, tensor)) return true;
    const Owned inside(PyObject_CallNoArgs(torch.inference_mode));
    return inside.get() == Py_True || refuse();
}

bool read_number(PyObject* given, double& out) {
    if (!PyFloat_CheckExact(given) && !PyLong_CheckExact(given)) return false;
    out = PyFloat_AsDouble(given);
    if (out == -1.0 && PyErr_Occurred()) return refuse();
    return std::isfinite(out);
}

bool read_numbers(PyObject* given, std::vector<double>& out) {
    if (PyList_CheckExact(given) || PyTuple_CheckExact(given)) {
        out.resize(static_cast<std::size_t>(PySequence_Fast_GET_SIZE(given)));
        for (std::size_t i = 0; i < out.size(); ++i) {
            if (!read_number(PySequence_Fast_GET_ITEM(given, static_cast<Py_ssize_t>(i)), out[i]))
                return false;
        }
        return true;
    }
    Elements numbers;
    if (!read_tensor(given, numbers) || !numbers.vector() || !numbers.type.is(dlpack::kFloat, 64))
        return false;
    out.resize(static_cast<std::size_t>(numbers.size));
    if (!out.empty()) std::memcpy(out.data(), numbers.data, out.size() * sizeof(double));
    return std::all_of(out.begin(), out.end(), [](double number) { return std::isfinite(number); });
}

bool read_offsets(PyObject* given, std::int64_t length, std::vector<std::int64_t>& out) {
    Elements bounds;
    if (!read_tensor(given, bounds) || !bounds.vector() || !bounds.type.is(dlpack::kInt, 64)) return false;
    if (bounds.size == 0) return false;
    out.resize(static_cast<std::size_t>(bounds.size));
    std::memcpy(out.data(), bounds.data, out.size() * sizeof(std::int64_t));
    return out.front() >= 0 && out.back() <= length && std::is_sorted(out.begin(), out.end());
}

}  // namespace fedtlu
