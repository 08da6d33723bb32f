"""Whom this server serves: one user on this machine, or others; and what follows for what it takes in."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st
from streamlit import config, runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

ONE_USER_MIB = 2048
"""What .streamlit/config.toml allows an upload to have."""
SHARED_MIB = 256
_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}


def for_one_user() -> bool:
    """Return whether the server listens on this machine only and answers to no other name."""
    return {st.get_option("server.address"), *st.get_option("server.allowedHosts")} <= _THIS_MACHINE


def bound_uploads() -> None:
    """Lower the limit of uploads where the server is opened to others; a limit that was set by hand stays."""
    if not for_one_user() and st.get_option("server.maxUploadSize") == ONE_USER_MIB:
        config.set_option("server.maxUploadSize", SHARED_MIB)


def forget(files: Iterable[UploadedFile]) -> None:
    """Free the memory of uploaded files, which Streamlit otherwise keeps for as long as their page is open; they cannot be read again."""
    context = get_script_run_ctx()
    manager = runtime.get_instance().uploaded_file_mgr if runtime.exists() else None
    if context is None or not isinstance(manager, MemoryUploadedFileManager):
        return  # no server, no files of its own
    for file in files:
        file.close()
        manager.remove_file(context.session_id, file.file_id)
