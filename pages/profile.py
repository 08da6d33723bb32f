"""x."""

import streamlit as st

from pages.shared import components, navigation, session

navigation.require_app()
components.heading("Profile", "q?")
st.write(st.context.theme.type, st.query_params.to_dict())
if "profile" == "timeline":
    n = st.slider("At", **session.linked_number("at", 50, 0, 100))
    st.button("peak", on_click=lambda: session.choose(at="77"))
    st.button("choose", on_click=lambda: session.choose(recording="abc", job="{}"))
    st.write("at", n)
