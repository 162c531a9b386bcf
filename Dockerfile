# The whole product on a CPU: docker build -t lora_sam . && docker run --rm -v "$PWD:/work" lora_sam train data.root=my_data
# With an NVIDIA GPU and its container toolkit, the same image: docker run --gpus all ... (torch of the index has CUDA).
FROM python:3.12-slim
RUN useradd --create-home --uid 1000 user
COPY . /tmp/lora_sam
RUN pip install --no-cache-dir "/tmp/lora_sam[all]" && rm -rf /tmp/lora_sam
USER user
WORKDIR /work
# nothing here reports home
ENV GRADIO_ANALYTICS_ENABLED=False HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
EXPOSE 7860
ENTRYPOINT ["lora-sam"]
CMD ["--help"]
