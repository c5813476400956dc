#include <torch/extension.h>
#include <torch/library.h>
#include <torch/custom_class.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/functional.h>

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Twice : torch::autograd::Function<Twice> {
  static torch::Tensor forward(AutogradContext* ctx, torch::Tensor x, double by) {
    ctx->save_for_backward({x});
    ctx->saved_data["by"] = by;
    ctx->mark_non_differentiable({});
    return x * by;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {grads[0] * ctx->saved_data["by"].toDouble(), torch::Tensor()};
  }
};
torch::Tensor twice(const torch::Tensor& x, double by) { return Twice::apply(x, by); }
std::tuple<torch::Tensor, torch::Tensor> two(const torch::Tensor& x, at::IntArrayRef dims, std::optional<double> eps) { return {x, x}; }

struct Plan : torch::CustomClassHolder {
  int64_t rows;
  explicit Plan(int64_t rows) : rows(rows) {}
  torch::Tensor run(torch::Tensor x) { return x.clone(); }
};

TORCH_LIBRARY(kitchen_sink, m) {
  m.class_<Plan>("Plan").def(torch::init<int64_t>()).def("run", &Plan::run).def_readwrite("rows", &Plan::rows);
  m.def("twice(Tensor x, float by) -> Tensor");
  m.def("two(Tensor x, int[] dims, float? eps=None) -> (Tensor, Tensor)");
  m.def("same", [](torch::Tensor x) { return x; });
}
TORCH_LIBRARY_IMPL(kitchen_sink, CPU, m) { m.impl("two", TORCH_FN(two)); }
TORCH_LIBRARY_IMPL(kitchen_sink, CompositeImplicitAutograd, m) { m.impl("twice", &twice); }
TORCH_LIBRARY_IMPL(kitchen_sink, Autograd, m) { m.impl("two", torch::CppFunction::makeFallthrough()); }

struct Kernel {
  torch::Tensor weight;
  py::object owner;
  torch::Tensor call(torch::Tensor x) { py::gil_scoped_release release; return x + weight; }
};
struct Net : torch::nn::Module { torch::nn::Linear fc{nullptr}; Net() { fc = register_module("fc", torch::nn::Linear(2, 2)); } };

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("twice", &twice, py::arg("x"), py::arg("by") = 2.0, py::call_guard<py::gil_scoped_release>());
  m.def("two", [](torch::Tensor x, std::vector<int64_t> dims, py::kwargs named) { return two(x, dims, 1.0); });
  m.def("array", [](py::array_t<float> a) { return torch::from_blob(a.mutable_data(), {(int64_t)a.size()}).clone(); });
  m.def("types", [](torch::Tensor x, at::ScalarType type, at::Device device, std::optional<at::Generator> g) { return x.to(device, type); });
  m.def("net", [](torch::Tensor x) { Net net; return net.fc->forward(x); });
  m.def("fails", [](std::function<int(int)> f) { if (f(1) == 1) throw std::invalid_argument("one"); throw py::value_error("v"); });
  m.def("refuses", [](torch::Tensor x) { TORCH_CHECK_VALUE(x.numel() > 0, "none"); return x; });
  py::class_<Kernel>(m, "Kernel").def(py::init([](torch::Tensor w) { return Kernel{w, py::none()}; })).def("call", &Kernel::call)
      .def_readwrite("weight", &Kernel::weight).def("__call__", &Kernel::call);
}
