// Stands in front of the stock header of the same name: devices, streams and launch checks, without the libraries (cuBLAS, cuSPARSE,
// cuSOLVER), whose headers a CUDA toolkit may lack and which no kernel needs.
#pragma once
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

namespace at::cuda {
using namespace c10::cuda;
cudaDeviceProp* getCurrentDeviceProperties();
cudaDeviceProp* getDeviceProperties(c10::DeviceIndex device);
}  // namespace at::cuda
