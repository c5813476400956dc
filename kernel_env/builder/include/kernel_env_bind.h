// Python bindings for plain functions over tensors, without pybind11.
//
// Instantiating pybind11's casters costs ten seconds of compile time for every extension; these few templates cost a
// fraction of one. They accept what `functions=[...]` of load_inline is used for: tensors, numbers, bools, strings,
// optionals and vectors of these, and return the same, tuples and nothing. A type outside of that list fails the static
// assertion below, and the builder then compiles the source again with the stock headers and pybind11.
#pragma once

#include <Python.h>
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

// From torch/csrc/autograd/python_variable.h, which itself includes pybind11.
extern __attribute__((visibility("default"))) PyObject* THPVariableClass;
#ifdef KERNEL_ENV_WRAP_BY_REFERENCE
extern __attribute__((visibility("default"))) PyObject* THPVariable_Wrap(const at::TensorBase& var);
#else
extern __attribute__((visibility("default"))) PyObject* THPVariable_Wrap(at::TensorBase var);
#endif

namespace kernel_env {

template <class T>
struct unsupported : std::false_type {};

struct python_error : std::exception {};  // the Python error indicator is already set

[[noreturn]] inline void type_error(const char* expected, PyObject* got) {
  PyErr_Format(PyExc_TypeError, "expected %s, got %s", expected, Py_TYPE(got)->tp_name);
  throw python_error();
}

inline void raise_if(bool failed) {
  if (failed) throw python_error();
}

// Put "argument 2: " in front of the message of the Python error that is set; counted from 1.
inline void name_argument(size_t index) {
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_Format(type, "argument %zu: %S", index + 1, value == nullptr ? Py_None : value);
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
}

// A new reference that is dropped unless released; a null one is a Python error.
struct owned {
  PyObject* object;
  explicit owned(PyObject* o) : object(o) { raise_if(o == nullptr); }
  owned(const owned&) = delete;
  ~owned() { Py_XDECREF(object); }
  PyObject* release() { return std::exchange(object, nullptr); }
};

// ---------------------------------------------------------------- arguments

template <class T, class = void>
struct arg {
  static_assert(unsupported<T>::value, "kernel_env_bind: unsupported type");
};

template <>
struct arg<at::Tensor> {
  at::Tensor value;
  explicit arg(PyObject* o) {
    int is_tensor = PyObject_IsInstance(o, THPVariableClass);
    raise_if(is_tensor < 0);
    if (!is_tensor) type_error("a Tensor", o);
    PyObject* address = PyObject_GetAttrString(o, "_cdata");
    raise_if(address == nullptr);
    void* impl = PyLong_AsVoidPtr(address);
    Py_DECREF(address);
    raise_if(impl == nullptr);
    value = at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim_copy(
        static_cast<c10::TensorImpl*>(impl)));
  }
};

template <>
struct arg<bool> {
  bool value;
  explicit arg(PyObject* o) {
    if (!PyBool_Check(o) && !PyLong_Check(o)) type_error("a bool", o);
    int truth = PyObject_IsTrue(o);
    raise_if(truth < 0);
    value = truth != 0;
  }
};

template <class T>
struct arg<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>>> {
  T value;
  explicit arg(PyObject* o) {
    if (PyFloat_Check(o)) type_error("an int", o);
    PyObject* index = PyNumber_Index(o);
    raise_if(index == nullptr);
    using wide_t = std::conditional_t<std::is_signed_v<T>, long long, unsigned long long>;
    wide_t wide;
    if constexpr (std::is_signed_v<T>)
      wide = PyLong_AsLongLong(index);
    else
      wide = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    bool failed = wide == static_cast<wide_t>(-1) && PyErr_Occurred();
    value = static_cast<T>(wide);
    if (failed || static_cast<wide_t>(value) != wide) {
      PyErr_Format(PyExc_OverflowError, "%R does not fit the C++ parameter's integer type", o);
      throw python_error();
    }
  }
};

template <class T>
struct arg<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  T value;
  explicit arg(PyObject* o) {
    double wide = PyFloat_AsDouble(o);
    raise_if(wide == -1.0 && PyErr_Occurred());
    value = static_cast<T>(wide);
  }
};

template <>
struct arg<std::string> {
  std::string value;
  explicit arg(PyObject* o) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(o, &size);
    raise_if(text == nullptr);
    value.assign(text, static_cast<size_t>(size));
  }
};

template <class T>
struct arg<std::optional<T>> {
  std::optional<T> value;
  explicit arg(PyObject* o) {
    if (o != Py_None) value = arg<T>(o).value;
  }
};

template <class T>
struct arg<std::vector<T>> {
  std::vector<T> value;
  explicit arg(PyObject* o) {
    PyObject* items = PySequence_Fast(o, "expected a list or tuple");
    raise_if(items == nullptr);
    Py_ssize_t n = PySequence_Fast_GET_SIZE(items);
    try {
      value.reserve(static_cast<size_t>(n));
      for (Py_ssize_t i = 0; i < n; ++i) value.push_back(arg<T>(PySequence_Fast_GET_ITEM(items, i)).value);
    } catch (...) {
      Py_DECREF(items);
      throw;
    }
    Py_DECREF(items);
  }
};

template <>
struct arg<at::IntArrayRef> {
  std::vector<int64_t> storage;
  at::IntArrayRef value;
  explicit arg(PyObject* o) : storage(arg<std::vector<int64_t>>(o).value), value(storage) {}
};

// ---------------------------------------------------------------- results

template <class T, class = void>
struct result {
  static_assert(unsupported<T>::value, "kernel_env_bind: unsupported type");
};

template <>
struct result<at::Tensor> {
  static PyObject* wrap(const at::Tensor& t) { return THPVariable_Wrap(t); }
};

template <>
struct result<bool> {
  static PyObject* wrap(bool v) { return PyBool_FromLong(v); }
};

template <class T>
struct result<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>>> {
  static PyObject* wrap(T v) {
    if constexpr (std::is_signed_v<T>)
      return PyLong_FromLongLong(v);
    else
      return PyLong_FromUnsignedLongLong(v);
  }
};

template <class T>
struct result<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static PyObject* wrap(T v) { return PyFloat_FromDouble(static_cast<double>(v)); }
};

template <>
struct result<std::string> {
  static PyObject* wrap(const std::string& v) { return PyUnicode_FromStringAndSize(v.data(), static_cast<Py_ssize_t>(v.size())); }
};

template <class T>
struct result<std::optional<T>> {
  static PyObject* wrap(const std::optional<T>& v) {
    if (v) return result<T>::wrap(*v);
    Py_RETURN_NONE;
  }
};

template <class T>
struct result<std::vector<T>> {
  static PyObject* wrap(const std::vector<T>& v) {
    owned list(PyList_New(static_cast<Py_ssize_t>(v.size())));
    for (size_t i = 0; i < v.size(); ++i)
      PyList_SET_ITEM(list.object, static_cast<Py_ssize_t>(i), owned(result<T>::wrap(v[i])).release());
    return list.release();
  }
};

template <class Tuple, size_t... I>
PyObject* wrap_tuple(const Tuple& v, std::index_sequence<I...>) {
  owned tuple(PyTuple_New(sizeof...(I)));
  (PyTuple_SET_ITEM(tuple.object, static_cast<Py_ssize_t>(I),
                    owned(result<std::decay_t<std::tuple_element_t<I, Tuple>>>::wrap(std::get<I>(v))).release()),
   ...);
  return tuple.release();
}

template <class... T>
struct result<std::tuple<T...>> {
  static PyObject* wrap(const std::tuple<T...>& v) { return wrap_tuple(v, std::index_sequence_for<T...>{}); }
};

template <class A, class B>
struct result<std::pair<A, B>> {
  static PyObject* wrap(const std::pair<A, B>& v) { return wrap_tuple(v, std::index_sequence<0, 1>{}); }
};

template <class T, size_t N>
struct result<std::array<T, N>> {
  static PyObject* wrap(const std::array<T, N>& v) { return wrap_tuple(v, std::make_index_sequence<N>{}); }
};

// ---------------------------------------------------------------- calls

template <class F>
PyObject* guarded(F&& body) {
  try {
    return body();
  } catch (const python_error&) {
  } catch (const c10::IndexError& e) {
    PyErr_SetString(PyExc_IndexError, e.what_without_backtrace());
  } catch (const c10::ValueError& e) {
    PyErr_SetString(PyExc_ValueError, e.what_without_backtrace());
  } catch (const c10::TypeError& e) {
    PyErr_SetString(PyExc_TypeError, e.what_without_backtrace());
  } catch (const c10::NotImplementedError& e) {
    PyErr_SetString(PyExc_NotImplementedError, e.what_without_backtrace());
  } catch (const c10::Error& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "unknown C++ exception");
  }
  return nullptr;
}

template <class T>
using bare = std::remove_cv_t<std::remove_reference_t<T>>;

template <auto F>
struct entry;

template <class T>
arg<T> converted(PyObject* o, size_t index) {
  try {
    return arg<T>(o);
  } catch (const python_error&) {
    name_argument(index);
    throw;
  }
}

template <class R, class... A, bool N, R (*F)(A...) noexcept(N)>
struct entry<F> {
  template <size_t... I>
  static PyObject* invoke(PyObject* const* args, std::index_sequence<I...>) {
    std::tuple<arg<bare<A>>...> held{converted<bare<A>>(args[I], I)...};
    (void)held;
    if constexpr (std::is_void_v<R>) {
      F(static_cast<A>(std::get<I>(held).value)...);
      Py_RETURN_NONE;
    } else {
      return result<bare<R>>::wrap(F(static_cast<A>(std::get<I>(held).value)...));
    }
  }

  static PyObject* call(PyObject*, PyObject* const* args, Py_ssize_t n) {
    return guarded([&]() -> PyObject* {
      if (n != static_cast<Py_ssize_t>(sizeof...(A))) {
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", static_cast<Py_ssize_t>(sizeof...(A)), n);
        throw python_error();
      }
      return invoke(args, std::index_sequence_for<A...>{});
    });
  }
};

// One row of a module's method table.
template <auto F>
PyMethodDef method(const char* name, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&entry<F>::call)), METH_FASTCALL, doc};
}

inline PyObject* module(const char* name, PyMethodDef* methods) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, name, nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}

}  // namespace kernel_env
