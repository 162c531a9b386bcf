# The whole product. From the folder with your images:
#   docker build -t lora_sam /path/to/this/checkout
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/workspace" lora_sam train data.root=my_data
# With an NVIDIA GPU and its container toolkit, the same image: docker run --gpus all ... (torch of the index has CUDA).
# The app: docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/workspace" -p 127.0.0.1:7860:7860 lora_sam app --host 0.0.0.0 --no-auth
FROM python:3.12-slim
# what the package is built from, and nothing else that lies in the checkout (.dockerignore)
COPY . /tmp/lora_sam
RUN pip install --no-cache-dir "/tmp/lora_sam[all]" && rm -rf /tmp/lora_sam
# any user may be the one who owns the folder that is mounted: it has a home, and without a mount a place to write to
RUN useradd --create-home --home-dir /opt/user --uid 1000 user && mkdir /workspace && chmod 1777 /workspace /opt/user
USER user
WORKDIR /workspace
ENV HOME=/opt/user
# what is downloaded and kept stays with the work: else each `docker run --rm` would fetch the weights again
ENV XDG_CACHE_HOME=/workspace/.cache
# nothing here reports home
ENV GRADIO_ANALYTICS_ENABLED=False HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
EXPOSE 7860
ENTRYPOINT ["lora-sam"]
CMD ["--help"]
