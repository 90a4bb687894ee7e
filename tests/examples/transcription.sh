curl -X POST http://localhost:1234/v1/audio/transcriptions \
  -H "Content-Type: multipart/form-data" \
  -F "file=@audio.mp3" \
  -F "model=whisper-base" \
  -F "language=en"
